// A session of the official ollama client for Node: node ollama_session.mjs URL MODEL EMBEDDER, run where the client is
// installed. Prints one JSON object that the test looks at.
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const require = createRequire(path.join(process.cwd(), 'any.js'))
const { Ollama } = await import(pathToFileURL(require.resolve('ollama')).href)
const [url, model, embedder] = process.argv.slice(2)
const client = new Ollama({ host: url })
const options = { num_predict: 8, temperature: 0, seed: 1 }
const messages = [{ role: 'user', content: 'hello' }]
const tools = [{ type: 'function', function: { name: 'f', description: 'd', parameters: { type: 'object', properties: {} } } }]
const seen = {}

seen.list = (await client.list()).models.map((m) => m.name)
seen.show = (await client.show({ model })).model_info['general.architecture']
seen.whole = await client.chat({ model, messages, options })
seen.parts = []
for await (const part of await client.chat({ model, messages, options, stream: true })) seen.parts.push(part)
seen.tools = (await client.chat({ model, messages, options, tools })).done
seen.text = ''
for await (const part of await client.generate({ model, prompt: 'Once', options, raw: true, stream: true })) seen.text += part.response
seen.raw = (await client.generate({ model, prompt: 'Once', options, raw: true })).response
seen.embeddings = (await client.embed({ model: embedder, input: ['one', 'two'] })).embeddings.map((v) => v.length)
seen.ps = (await client.ps()).models.map((m) => m.name)

const long = await client.chat({ model, messages, options: { num_predict: 100000, temperature: 1 }, stream: true })
try {
  for await (const part of long) long.abort()
} catch (e) {
  seen.aborted = e.name
}
try {
  await client.chat({ model: 'tiny-x', messages })
} catch (e) {
  seen.unknown = { status: e.status_code, error: e.error ?? e.message }
}
seen.unloaded = (await client.generate({ model, prompt: '', keep_alive: 0 })).done_reason
console.log(JSON.stringify(seen))
