// One action of an official client for Node: node clients.mjs CLIENT URL ACTION MODEL, run where the clients are installed.
// Prints one JSON object, the same for all clients, that the test looks at (test_clients.py).
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const require = createRequire(path.join(process.cwd(), 'any.js'))
const load = async (name) => import(pathToFileURL(require.resolve(name)).href)
const [client, url, action, model] = process.argv.slice(2)
const messages = [{ role: 'user', content: 'hello' }]
const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const tool = { type: 'function', function: { name: 'weather', description: 'The weather in a city.', parameters: schema } }
const asking = { headers: { 'X-Arriero-Progress': '1' } }

async function openai() {
  const { default: OpenAI } = await load('openai')
  const c = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  const ask = { model, messages, max_tokens: 8, temperature: 0, seed: 1 }
  const told = [...messages,
    { role: 'assistant', content: null, tool_calls: [{ id: 'c1', type: 'function', function: { name: 'weather', arguments: '{"city":"Paris"}' } }] },
    { role: 'tool', tool_call_id: 'c1', content: 'rain' }]
  const whole = async (more = {}) => {
    const r = await c.chat.completions.create({ ...ask, ...more })
    return { text: r.choices[0].message.content, finish: r.choices[0].finish_reason, tokens: r.usage.completion_tokens }
  }
  const stream = async (options) => {
    const seen = { text: '', pieces: 0, finish: null }
    for await (const chunk of await c.chat.completions.create({ ...ask, stream: true }, options)) {
      seen.text += chunk.choices[0]?.delta?.content ?? ''
      seen.finish = chunk.choices[0]?.finish_reason ?? seen.finish
      seen.pieces++
    }
    return seen
  }
  return {
    list: async () => ({ ids: (await c.models.list()).data.map((m) => m.id) }),
    chat: () => whole(),
    stream: () => stream(),
    progress: () => stream(asking),
    tools: () => whole({ tools: [tool], messages: told }),
    embeddings: async () => ({ lengths: (await c.embeddings.create({ model, input: ['one', 'two'] })).data.map((d) => d.embedding.length) }),
    cancel: async () => {
      const s = await c.chat.completions.create({ ...ask, max_tokens: 100000, temperature: 1, stream: true })
      for await (const chunk of s) { if (chunk) break }
      return { cancelled: true }
    },
    unknown: async () => c.chat.completions.create({ ...ask, model: 'nothing-like-it' })
  }
}

async function anthropic() {
  const { default: Anthropic } = await load('@anthropic-ai/sdk')
  const c = new Anthropic({ baseURL: url, apiKey: 'none', maxRetries: 0 })
  const ask = { model, messages, max_tokens: 8, temperature: 0, seed: 1 }
  const told = [...messages,
    { role: 'assistant', content: [{ type: 'tool_use', id: 't1', name: 'weather', input: { city: 'Paris' } }] },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't1', content: 'rain' }] }]
  const words = (content) => content.map((b) => b.text ?? '').join('')
  const whole = async (more = {}) => {
    const r = await c.messages.create({ ...ask, ...more })
    return { text: words(r.content), finish: r.stop_reason, tokens: r.usage.output_tokens }
  }
  const stream = async (options) => {
    const s = c.messages.stream(ask, options)
    let pieces = 0
    for await (const event of s) pieces += event.type === 'content_block_delta'
    const r = await s.finalMessage()
    return { text: words(r.content), finish: r.stop_reason, pieces }
  }
  return {
    list: async () => ({ ids: (await c.models.list()).data.map((m) => m.id) }),
    chat: () => whole(),
    stream: () => stream(),
    progress: () => stream(asking),
    tools: () => whole({ tools: [{ name: 'weather', description: 'The weather in a city.', input_schema: schema }], messages: told }),
    cancel: async () => {
      const s = c.messages.stream({ ...ask, max_tokens: 100000, temperature: 1 })
      s.on('text', () => s.abort())
      try { await s.finalMessage() } catch (e) { if (e.constructor.name !== 'APIUserAbortError') throw e }
      return { cancelled: true }
    },
    unknown: async () => c.messages.create({ ...ask, model: 'nothing-like-it' })
  }
}

async function ollama() {
  const { Ollama } = await load('ollama')
  const c = new Ollama({ host: url })
  const options = { num_predict: 8, temperature: 0, seed: 1 }
  const told = [...messages,
    { role: 'assistant', content: '', tool_calls: [{ function: { name: 'weather', arguments: { city: 'Paris' } } }] },
    { role: 'tool', tool_name: 'weather', content: 'rain' }]
  const whole = async (more = {}) => {
    const r = await c.chat({ model, messages, options, ...more })
    return { text: r.message.content, finish: r.done_reason, tokens: r.eval_count }
  }
  const stream = async (from) => {
    const seen = { text: '', pieces: 0, finish: null }
    for await (const part of await from.chat({ model, messages, options, stream: true })) {
      seen.text += part.message.content
      seen.finish = part.done_reason ?? seen.finish
      seen.pieces++
    }
    return seen
  }
  return {
    list: async () => ({ ids: (await c.list()).models.map((m) => m.name) }),
    chat: () => whole(),
    stream: () => stream(c),
    progress: () => stream(new Ollama({ host: url, headers: asking.headers })),
    tools: () => whole({ tools: [tool], messages: told }),
    embeddings: async () => ({ lengths: (await c.embed({ model, input: ['one', 'two'] })).embeddings.map((v) => v.length) }),
    cancel: async () => {
      const s = await c.chat({ model, messages, options: { num_predict: 100000, temperature: 1 }, stream: true })
      try { for await (const part of s) if (part) s.abort() } catch (e) { if (e.name !== 'AbortError') throw e }
      return { cancelled: true }
    },
    unknown: async () => c.chat({ model: 'nothing-like-it', messages })
  }
}

const actions = await { openai, anthropic, ollama }[client]()
try {
  console.log(JSON.stringify(await actions[action]()))
} catch (e) {
  if (action !== 'unknown') throw e
  console.log(JSON.stringify({ status: e.status ?? e.status_code, message: e.message }))
}
