#!/bin/sh
# Calls the service over HTTP: sh call.sh
curl --silent --show-error http://127.0.0.1:7400/{{path}} -d '{{arguments}}'
echo
