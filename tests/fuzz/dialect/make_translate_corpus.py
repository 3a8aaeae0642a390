"""Writes the corpus of fuzz_translate: every kind of request with every kind of answer."""
import json, os
out = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../corpus/translate')
T=',"created":7,"id":"chatcmpl-9","model":"f"}\n\n'
def delta(d): return 'data: {"choices":[{"finish_reason":null,"index":0,"delta":'+json.dumps(d)+'}]'+T
fin='data: {"choices":[{"finish_reason":"%s","index":0,"delta":{}}]'+T
usage='data: {"choices":[],"usage":{"completion_tokens":2,"prompt_tokens":5}'+T
prog='data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9,"cache":1}'+T
done='data: [DONE]\n\n'
streams=[prog+delta({"content":"hé"})+fin%'stop'+usage+done,
 delta({"reasoning_content":"hm"})+delta({"content":"a"})+delta({"refusal":"no"})+fin%'length'+usage+done,
 delta({"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"{\"a\""}}]})+delta({"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":1,"function":{"name":"g"}}]})+fin%'tool_calls'+usage+done,
 prog+delta({"content":"cut"}), 'data: {"error":{"code":503,"message":"full"}}\n\n',
 '{"prompt":"<hi>"}','{"tokens":[1,2]}','{"data":[{"embedding":[0.5,1]}],"usage":{"prompt_tokens":3}}']
bodies=[
 {"max_tokens":5,"messages":[{"role":"user","content":"hi"}]},
 {"stream":True,"max_tokens":5,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"QUJD"}}]},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":1}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"}]}],"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":"f"},"stop_sequences":["x"],"thinking":{"type":"enabled","budget_tokens":9},"metadata":{"user_id":"u"}},
 {"model":"m","messages":[{"role":"user","content":"hi","images":["QUJD"]}],"options":{"temperature":1,"num_ctx":9},"format":"json","tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"keep_alive":"5m"},
 {"model":"m","prompt":"hi","stream":False,"think":True}, {"model":"m","input":["a","b"]}, {"model":"m","messages":[]},
 {"stream":True,"input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"x"}],"instructions":"i","tools":[{"type":"function","name":"f","parameters":{}}],"max_output_tokens":4,"text":{"format":{"type":"json_object"}}},
]
k=0
for b,body in enumerate(bodies):
    for s,stream in enumerate(streams):
        call = k % 8
        open(f'{out}/{b}{s}','wb').write(bytes([call, (s*37+b*5)&255])+json.dumps(body).encode()+b'\0'+stream.encode())
        k+=1
for c in range(8):
    open(f'{out}/c{c}','wb').write(bytes([c,3])+json.dumps(bodies[min(c,6)]).encode()+b'\0'+streams[c%3].encode())
