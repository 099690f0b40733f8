"""Edit a video through a running ComfyUI, without a browser.

python edit.py clip.mp4 "turn it into a night scene" edited.mp4 [http://127.0.0.1:8188]
"""

import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

clip, instruction, edited, server = (sys.argv[1:] + ["http://127.0.0.1:8188"])[:4]


def ask(path, body=None, kind="application/json"):
    with urllib.request.urlopen(urllib.request.Request(f"{server}/{path}", body, {"Content-Type": kind})) as answer:
        return answer.read()


head = f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{Path(clip).name}"\r\n\r\n'.encode()
body = head + Path(clip).read_bytes() + b"\r\n--edge--\r\n"
uploaded = json.loads(ask("upload/image", body, "multipart/form-data; boundary=edge"))
prompt = json.loads(Path(__file__).with_name("liveditor_demo_api.json").read_text(encoding="utf-8"))
prompt["video"]["inputs"]["file"], prompt["instruction"]["inputs"]["text"] = uploaded["name"], instruction
job = json.loads(ask("prompt", json.dumps({"prompt": prompt}).encode()))["prompt_id"]
while not (done := json.loads(ask(f"history/{job}"))):
    time.sleep(1)
if done[job]["status"]["status_str"] != "success":
    sys.exit(done[job]["status"]["messages"][-1][1].get("exception_message", "the edit failed"))
Path(edited).write_bytes(ask("view?" + urllib.parse.urlencode(done[job]["outputs"]["save"]["images"][0])))
