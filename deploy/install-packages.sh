#!/usr/bin/env bash
# install-packages.sh [SECTION...]: installs what debian-packages.txt lists, or only what it lists
# under the comments that begin with these words, and this machine lacks. Needs root, or sudo, only
# for that. No service is started or enabled: Debian's prometheus would otherwise run as a daemon from
# then on.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v apt-get > /dev/null; then
  echo "This is not a Debian system: install the counterparts of deploy/debian-packages.txt." >&2
  exit 1
fi

list=$(awk -v sections="${*,,}" '
  BEGIN { split(sections, words, " "); for (i in words) asked[words[i]] = 1 }
  /^#/ { name = tolower($2); sub(":$", "", name); known[name] = 1; next }
  NF && (sections == "" || name in asked) { print $1 }
  END {
    for (word in asked) if (!(word in known)) {
      print "debian-packages.txt: no section " word > "/dev/stderr"
      exit 1
    }
  }' debian-packages.txt)
mapfile -t wanted <<< "$list"
missing=()
for package in "${wanted[@]}"; do
  # shellcheck disable=SC2016  # the ${} is dpkg-query's
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null || true)
  [[ $status == installed* ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "    all ${#wanted[@]} are installed"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo > /dev/null; then
    echo "Run as root once: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "    apt-get installs ${#missing[@]} of ${#wanted[@]} (with ${as_root[*]:-root}): ${missing[*]}"
"${as_root[@]}" apt-get update -q
# Packages' scripts ask policy-rc.d before they start a service; 101 forbids it.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin "$policy"
fi
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -q --no-install-recommends "${missing[@]}" < /dev/null
# Their scripts also enable a service for the next start of the machine.
if [[ " ${missing[*]} " == *" prometheus "* && -d /run/systemd/system ]]; then
  "${as_root[@]}" systemctl disable --quiet prometheus
fi
