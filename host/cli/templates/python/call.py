"""Calls the service over HTTP: python3 call.py"""

import json
import urllib.error
import urllib.request

body = json.dumps(json.loads(r"""{{arguments}}""")).encode()
request = urllib.request.Request(
    "http://127.0.0.1:7400/{{path}}", body, {"Content-Type": "application/json"}
)
try:
    print(json.load(urllib.request.urlopen(request)))
except urllib.error.HTTPError as error:
    print(json.load(error))
