#!/bin/sh
# Prints what deploy/.env needs for the gateway to let in you and Prometheus, and nobody else:
#
#   sh deploy/new-keys.sh >> deploy/.env
#
# The same as `quarterhour key new`, where Quarterhour is not installed.
set -eu

key() { printf 'qh_%s' "$(openssl rand -hex 32)"; }
hash() { printf '%s' "$1" | openssl dgst -sha256 -r | cut -d ' ' -f 1; }

yours=$(key)
prometheus=$(key)
echo "QUARTERHOUR_API_KEY=$yours"
echo "PROMETHEUS_KEY=$prometheus"
echo "API_KEYS='sha256:$(hash "$yours") admin; sha256:$(hash "$prometheus") read'"
