#!/usr/bin/env bash
# What runs after the clone may call nothing: libc's functions use the TLS of the thread that cloned. So its objects have no
# undefined symbols, but for the table that position-independent code addresses data through.
set -euo pipefail
allowed='^(_GLOBAL_OFFSET_TABLE_)$'
for object in "$@"; do
  found=$(nm -u "$object" | sed 's/^ *[Uwv] //' | grep -Ev "$allowed" || true)
  if [ -n "$found" ]; then
    printf '%s calls out of the child:\n%s\n' "$object" "$found" >&2
    exit 1
  fi
done
echo "$# objects call nothing"
