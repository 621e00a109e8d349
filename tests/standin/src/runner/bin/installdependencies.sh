#!/bin/sh
# The real one installs what .NET needs; the stand-in only sees to curl or wget.
if command -v curl >/dev/null 2>&1 || command -v wget >/dev/null 2>&1; then
    echo "-----------------------------"
    echo " Finish Install Dependencies"
    echo "-----------------------------"
    exit 0
fi
echo "The runner stand-in needs curl or wget." >&2
exit 1
