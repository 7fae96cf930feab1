#!/usr/bin/env bash
# Builds everything and runs every test. Usage: ./test.sh [filter]
#   ./test.sh                 all tests
#   ./test.sh Conformance     only tests whose full name contains the word
# Needs the .NET 10 SDK; tests start what servers they need by themselves and clean up after.
# Closes with the line "N passed, N failed" and exits 1 if a test failed or none ran.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v dotnet >/dev/null 2>&1; then
    echo "The .NET 10 SDK is missing: install it from https://dot.net and try again." >&2
    exit 1
fi

# The tests of PostgreSQL start servers of their own from its programs, unless a running one is given.
if [ -z "${HOLDFAST_TEST_POSTGRES:-}${HOLDFAST_POSTGRES_BIN:-}" ] && ! command -v initdb >/dev/null 2>&1 \
    && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing PostgreSQL's server programs for the tests." >&2
        apt-get install --yes --no-install-recommends postgresql >/dev/null || { apt-get update >/dev/null && apt-get install --yes --no-install-recommends postgresql >/dev/null; }
    else
        echo "PostgreSQL's server programs are missing, and its tests will fail: install Debian's package postgresql, or name a server in HOLDFAST_TEST_POSTGRES." >&2
    fi
fi

# And those of Redis from its programs.
if [ -z "${HOLDFAST_REDIS_BIN:-}" ] && ! { command -v redis-server && command -v redis-cli; } >/dev/null 2>&1; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing Redis for the tests." >&2
        apt-get install --yes --no-install-recommends redis-server redis-tools >/dev/null || { apt-get update >/dev/null && apt-get install --yes --no-install-recommends redis-server redis-tools >/dev/null; }
    else
        echo "Redis's programs are missing, and its tests will fail: install Debian's package redis-server." >&2
    fi
fi

# And those of the queue from RabbitMQ's.
if [ -z "${HOLDFAST_RABBITMQ_BIN:-}" ] && [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && ! command -v rabbitmq-server >/dev/null 2>&1; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing RabbitMQ for the tests." >&2
        apt-get install --yes --no-install-recommends rabbitmq-server >/dev/null || { apt-get update >/dev/null && apt-get install --yes --no-install-recommends rabbitmq-server >/dev/null; }
    else
        echo "RabbitMQ's programs are missing, and its tests will fail: install Debian's package rabbitmq-server." >&2
    fi
fi

export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1
results=artifacts/test-results
rm -rf "$results"

dotnet build Holdfast.slnx --configuration Release --verbosity quiet

filter=()
if [ $# -gt 0 ]; then
    filter=(--filter "FullyQualifiedName~$1")
fi

status=0
dotnet test Holdfast.slnx --configuration Release --no-build --verbosity quiet \
    --logger trx --logger "console;verbosity=minimal" \
    --blame-hang-timeout 5m --blame-hang-dump-type none \
    --results-directory "$results" "${filter[@]}" || status=$?

# Each test project leaves one .trx; its counters are added up here.
count() {
    cat "$results"/*.trx 2>/dev/null | grep -o "<Counters [^>]*" | grep -o " $1=\"[0-9]*\"" | grep -o '[0-9]*' | awk '{ n += $1 } END { print n + 0 }'
}
passed=$(count passed)
failed=$(count failed)
skipped=$(count notExecuted)
if [ "$status" -eq 0 ] && [ "$((passed + failed))" -eq 0 ]; then
    echo "No test ran." >&2
    status=1
fi
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
exit "$status"
