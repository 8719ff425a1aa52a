#!/usr/bin/env bash
# make-base.sh OUT_DIR: makes OUT_DIR/minbase.tar, a bare Debian 12, and OUT_DIR/slim.tar, the same
# without documentation and translations, as the registry's debian:bookworm-slim is. Does nothing for
# what is there already. Needs root, debootstrap and a Debian mirror.
set -euo pipefail
out=$(realpath "$1")
mkdir -p "$out"
[[ -e $out/minbase.tar && -e $out/slim.tar ]] && exit 0

tree=$(mktemp -d "$out/tree.XXXXXX")
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
debootstrap --variant=minbase bookworm "$tree"
rm "$tree/etc/apt/sources.list"
cat > "$tree/etc/apt/sources.list.d/debian.sources" << 'END'
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/* "$tree"/var/log/{bootstrap,dpkg}.log
tar -C "$tree" -cf "$out/minbase.tar.part" .

cat > "$tree/etc/dpkg/dpkg.cfg.d/docker" << 'END'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
END
find "$tree/usr/share/doc" -type f ! -name copyright -delete
find "$tree/usr/share/doc" -type l -delete
rm -rf "$tree"/usr/share/{groff,info,locale,man}/*
tar -C "$tree" -cf "$out/slim.tar.part" .
mv "$out/minbase.tar.part" "$out/minbase.tar"
mv "$out/slim.tar.part" "$out/slim.tar"
