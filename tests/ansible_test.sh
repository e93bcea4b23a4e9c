#!/usr/bin/env bash
# Runs ansible-test on a copy of the collection: it refuses the link of the checkout.
set -euo pipefail
# Outside the checkout, whose .gitignore would hide the copy.
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
copy="$directory/ansible_collections/deeptrain/cluster"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar --null --files-from - --create | tar --extract --directory "$copy"

# ansible-test keeps its tools below the home directory, and fetches a bootstrap for pip
# from the web; this one takes the same pip as a package instead.
export HOME="$PWD/.cache/ansible-test"
pip_version=$(python - <<'PYTHON'
import re
from importlib import resources

text = (resources.files("ansible_test") / "_internal" / "python_requirements.py").read_text()
print(re.search(r"pip='([0-9.]+)'", text).group(1))
PYTHON
)
cache="$HOME/.ansible/test/cache"
mkdir -p "$cache"
pip download --quiet --no-deps --dest "$cache" "pip==$pip_version"
cat >"$cache/get_pip_${pip_version//./_}.py" <<PYTHON
import sys
sys.path.insert(0, "$cache/pip-$pip_version-py3-none-any.whl")
from pip._internal.cli.main import main
options = [item for item in sys.argv[1:] if item not in ("--no-setuptools", "--no-wheel")]
sys.exit(main(["install", "--upgrade", *options]))
PYTHON

cd "$copy"
python_version=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ansible-test "$@" --python "$python_version" --requirements --color no
