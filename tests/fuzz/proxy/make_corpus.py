#!/usr/bin/env python3
"""Writes the seed inputs of the proxy's fuzz targets: tests/corpus/http, jsonmodel, form and answer."""
import os

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'corpus')

JSON = [
    b'{}', b'[]', b'1', b'"a"', b'', b' ', b'{"model":"a"}', b'{"model":"a","model":"b"}', b'{"model":1}',
    b'{"model":null}', b'{"mod\\u0065l":"\\ud83d\\ude00\\n\\/"}', b'{"model":"\\u0000"}', b'{"model":"' + b'x' * 300 + b'"}',
    b'{"a":{"model":"no"},"b":[{"model":"no"}],"model":"yes"}', b'{"model":"\\ud83d"}', b'{"model":"\\ude00\\ud83d"}',
    b'{"a":-0.5e+10,"b":0,"c":1E9,"d":-1}', b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":1e}', b'{"a":-}',
    b'{"a":true,"b":false,"c":null}', b'{"a":tru}', b'{"a":nul', b'{"a":"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"}',
    b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\x80"}', b'{"a":"\x01"}',
    b'{"a":"\\x"}', b'{"a" 1}', b'{"a":1 "b":2}', b'{"a":1,}', b'{,}', b'[1,]', b'[1 2]', b'{"a":1}}', b'{"a":1]', b'{a:1}',
    b'[' * 512 + b']' * 512, b'[' * 513 + b']' * 513, b'{"a":' * 20 + b'1' + b'}' * 20, b'\xef\xbb\xbf{}', b'{"model"',
    b'{"model":', b'{"model":"a"', b'{ "stream" : true , "model"\t:\r\n"a b" } ', b'{"":"","model":""}',
    b'{"messages":[{"role":"user","content":"' + b'long text with \\"quotes\\" and \\\\ ' * 40 + b'"}],"model":"m"}',
]

H = b' HTTP/1.1\r\nHost: a\r\n'
REQUESTS = [
    b'GET /echo?q=1%20x' + H + b'\r\n', b'POST /echo' + H + b'Content-Length: 3\r\n\r\nabc',
    b'POST /echo' + H + b'Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: x\r\n\r\nGET /echo' + H + b'\r\n',
    b'GET /item/a%2fb/..' + H + b'\r\n', b'GET /echo HTTP/1.0\r\n\r\n', b'GET http://a/echo' + H + b'\r\n', b'OPTIONS *' + H + b'\r\n',
    b'POST /echo' + H + b'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', b'\r\n\r\nGET /echo' + H + b'\r\n',
    b'GET /echo' + H + b'X-A: ' + b'x' * 17000 + b'\r\n\r\n', b'GET /echo' + H + b'A: 1\r\n' * 110 + b'\r\n',
    b'POST /v1/chat/completions' + H + b'Content-Length: 13\r\n\r\n{"model":"m"}', b'CONNECT a:1' + H + b'\r\n',
    b'POST /v1/chat/completions' + H + b'Content-Length: 5\r\n\r\n{"a":', b'POST /echo' + H + b'Content-Length: 5000\r\n\r\n',
    b'POST /v1/chat/completions' + H + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"mod\r\n8\r\nel":"m"}\r\n0\r\n\r\n',
    b'GET /nothing' + H + b'Connection: close, x\r\nOrigin: http://localhost\r\nUpgrade: h2c\r\n\r\n',
    b'GET /echo' + H + b'\r\nGET /echo' + H + b'\r\n' * 3, b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', b'GET /echo' + H + b' folded\r\n\r\n',
    b'POST /echo' + H + b'Expect: 100-continue\r\nContent-Length: 1\r\n\r\na', b'\x16\x03\x01\x02\x00\x01',
]

OK = b'HTTP/1.1 200 OK\r\n'
SSE = OK + b'Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n'
ANSWERS = [
    OK + b'Content-Length: 5\r\n\r\nhello', OK + b'Content-Length: 5\r\n\r\nhell', OK + b'Content-Length: 5\r\n\r\nhello!',
    OK + b'\r\nuntil the end', b'HTTP/1.0 200 OK\r\n\r\nold', SSE + b'9\r\ndata: 1\n\n\r\n0\r\n\r\n', SSE + b'9\r\ndata: 1\n\n\r\n',
    SSE + b'3;x=y\r\nabc\r\n00002\r\nde\r\n0\r\nT: 1\r\n\r\n', SSE + b'5\r\nhello\r\n1\r\n!\r\nA\r\n0123456789\r\n0\r\n\r\n',
    SSE + b'ffffffffffffffff\r\n', SSE + b'-1\r\n', SSE + b'5\r\nhellox\r\n', b'HTTP/1.1 100 Continue\r\n\r\n' + OK + b'Content-Length: 0\r\n\r\n',
    b'HTTP/1.1 204 No Content\r\n\r\n', b'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n', b'SSH-2.0-x\r\n', OK + b'X: ' + b'x' * 20000,
    OK + b'Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', OK + b'Transfer-Encoding: gzip\r\n\r\nx', b'',
    OK + b'Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok', b'HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n',
    SSE + b'3c\r\ndata: {"usage":{"prompt_tokens":11,"completion_tokens":4}}\n\n\r\n0\r\n\r\n',
    OK + b'Content-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: [DONE]\n\n',
]

FORM = b'multipart/form-data; boundary=B\n'
FIELD = b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
SOUND = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n\0\xff\r\n--\r\n'
FORMS = [
    FORM + FIELD % b'model' + b'a\r\n' + SOUND + b'--B--\r\n', FORM + SOUND + FIELD % b'model' + b'a\r\n--B--', FORM + b'--B--',
    FORM + b'x\r\n' + FIELD % b'model' + b'a\r\n' + FIELD % b'model' + b'b\r\n--B--', FORM + b'--B\r\n--B--', FORM + b'--B\r\n\r\n\r\n--B--',
    b'multipart/form-data; boundary="a b";x=y\n--a b\r\nX: y\r\nContent-Disposition: form-data;name=model\r\n\r\n\r\n--a b--',
    FORM + FIELD % b'model' + b'\r\n\r\n--Bx\r\n--B--', b'multipart/mixed; boundary=B\n--B--', b'multipart/form-data\n', b'', FORM,
]

TAIL = b',"created":7,"id":"c","model":"m","system_fingerprint":"b"}\n\n'
USAGE = b'data: {"choices":[],"usage":{"n":1.5},"timings":{"a":-2e9}' + TAIL
DONE = b'data: [DONE]\n\n'


def delta(text, index=b'0', finish=b'null'):
    return b'data: {"choices":[{"finish_reason":' + finish + b',"index":' + index + b',"delta":{' + text + b'}}]' + TAIL


END = delta(b'', finish=b'"stop"') + USAGE + DONE
STREAMS = [
    b'', DONE, USAGE + DONE, END, delta(b'"role":"assistant","content":null') + delta(b'"content":"a\\u00e9\\ud83d\\ude00\\u0000"') + END,
    delta(b'"content":"\xff"') + END, delta(b'"content":"\\ud83d"') + END, delta(b'"content":1,"tool_calls":{}') + END,
    delta(b'"reasoning_content":"r","refusal":"n"') + END, delta(b'"content":"b"', b'1') + delta(b'"content":"a"') + END,
    delta(b'"content":"b"', b'1') + delta(b'', b'1', b'"length"') + USAGE + delta(b'"content":"a"') + END, delta(b'', b'255') + END,
    delta(b'', b'256'), delta(b'', b'-1'), delta(b'', b'1e3'), delta(b'', b'"0"'), delta(b'"content":"' + b'x' * 5000 + b'"') + END,
    delta(b'"tool_calls":[{"index":0,"id":"i","type":"function","function":{"name":"f","arguments":"{"}}]') +
    delta(b'"tool_calls":[{"index":0,"function":{"arguments":"}"}}]') + END, delta(b'"tool_calls":[{"index":1023}]') + END,
    delta(b'"tool_calls":[{"index":3,"function":[]}]') + END, delta(b'"tool_calls":[1]'), b'data: {"error":{"code":503,"message":"x"}}\n\n',
    b'data: {"error":"\\u0001"}\n\n', b'data: {"error":{"code":1e300}}\n\n', b'data: {"error":null,"choices":[]}\n\n' + DONE, b'data: {\n\n',
    b'data: {"choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":null}]' + TAIL +
    b'data: {"choices":[{"text":"b","index":0,"finish_reason":"stop"}],"usage":{"n":1}' + TAIL + DONE,
    b'data: {"choices":[null]}\n\n', b': comment\r\nevent: x\r\ndata: {"choices"\r\ndata: :[]}\r\n\r\n' + DONE, b'data\n\n',
    END[:-2], END + END, END.replace(b'\n', b'\r'), b'data: ' + b'[' * 3000 + b'\n\n',
]


def write(folder, name, data):
    os.makedirs(os.path.join(ROOT, folder), exist_ok=True)
    with open(os.path.join(ROOT, folder, name), 'wb') as f:
        f.write(data)


def main():
    for i, text in enumerate(JSON):
        write('jsonmodel', 'whole-%02d' % i, b'\0' + text)
        write('jsonmodel', 'bytes-%02d' % i, b'\1' + text)
    for i, text in enumerate(FORMS):
        for step in (1, 7):
            write('form', '%02d-%d' % (i, step), bytes([step]) + text)
    for i, text in enumerate(STREAMS):
        for mode in (1, 0, 15):
            write('answer', '%02d-%02d' % (i, mode), bytes([mode]) + text)
    for side, rows in ((b'Q', REQUESTS), (b'A', ANSWERS)):
        for i, text in enumerate(rows):
            for step in (0, 1 if len(text) < 400 else 97, 7):
                write('http', '%s-%02d-%d' % ({b'Q': 'request', b'A': 'answer'}[side], i, step), side + bytes([step]) + text)


main()
