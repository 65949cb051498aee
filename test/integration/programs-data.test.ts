// Real programs, with nothing but defaults: those that keep data.
import { runIsolated, type SpawnOptions } from 'cloister';
import { expect } from 'vitest';
import { postgresqlDirectory } from '../helpers/installed.js';
import { testNeeding } from '../helpers/lane.js';

async function printed(script: string, options: SpawnOptions = {}): Promise<string> {
  const { stdout, stderr, exitCode, signal } = await runIsolated('bash', ['-euo', 'pipefail', '-c', script], options);
  expect({ exitCode, signal, stderr, stdout: exitCode === 0 ? '' : stdout }).toEqual({ exitCode: 0, signal: null, stderr: '', stdout: '' });
  return stdout;
}

testNeeding(['program:bash', 'program:git'])('git: commits, branches, merges, clones', async () => {
  const who = Object.fromEntries(
    ['AUTHOR', 'COMMITTER'].flatMap((role) => [
      [`GIT_${role}_NAME`, 'Somebody'],
      [`GIT_${role}_EMAIL`, 'somebody@example.org'],
      [`GIT_${role}_DATE`, '2026-01-01T00:00:00Z'],
    ]),
  );
  const script = `
    git init -q -b main ~/project && cd ~/project
    echo one > file && git add file && git commit -qm first
    git switch -q -c side && echo two > other && git add other && git commit -qm second
    git switch -q main && git merge -q --no-ff -m merged side
    git log --oneline --graph
    git clone -q ~/project /tmp/copy && git clone -q file://$HOME/project /var/tmp/over-a-pipe
    git -C /tmp/copy status --short --branch
    git -C /var/tmp/over-a-pipe gc -q && git -C /var/tmp/over-a-pipe fsck --strict 2>&1
    echo more >> /tmp/copy/file && git -C /tmp/copy commit -qam third && git -C /tmp/copy push -q origin HEAD:pushed
    git diff main pushed`;
  expect(await printed(script, { env: who })).toMatchInlineSnapshot(`
    "*   502b707 merged
    |\\  
    | * 819e9a3 second
    |/  
    * 75643fa first
    ## main...origin/main
    diff --git a/file b/file
    index 5626abf..9a72323 100644
    --- a/file
    +++ b/file
    @@ -1 +1,2 @@
     one
    +more
    "
  `);
});

testNeeding(['program:bash', 'program:sqlite3'])('sqlite3: transactions, and writers at the same time in WAL mode', async () => {
  const script = `
    cd /tmp
    sqlite3 data.db 'pragma journal_mode=wal; create table t (n integer); begin; insert into t values (1); rollback; begin; insert into t values (2); commit;'
    for writer in 1 2 3 4; do
      for n in {1..10}; do echo "insert into t values ($n);"; done | sqlite3 -cmd '.timeout 30000' data.db &
    done
    wait
    sqlite3 data.db 'select count(*), sum(n) from t; pragma integrity_check;'`;
  expect(await printed(script)).toMatchInlineSnapshot(`
    "wal
    41|222
    ok
    "
  `);
});

testNeeding(['program:bash', 'program:redis-server', 'program:redis-cli'])('redis-server: by TCP and a socket, transactions, a snapshot by fork', async () => {
  const script = `
    cd /tmp && mkfifo log
    start() {
      redis-server --dir /tmp --save '' --unixsocket /tmp/socket > log 2>&1 &
      exec {said}< log
      heard 'ready to accept connections at'
    }
    heard() { while read -r line <&"$said"; do case $line in *"$1"*) return;; esac; done; echo "never said: $1"; return 1; }
    start
    redis-cli -h localhost ping
    redis-cli -s /tmp/socket set key value
    printf 'multi\\nincr n\\nincrby n 41\\nexec\\n' | redis-cli
    redis-cli bgsave > /dev/null && heard 'Background saving terminated with success'
    redis-cli shutdown nosave && wait && exec {said}<&-
    start
    redis-cli mget key n
    redis-cli shutdown nosave && wait`;
  expect(await printed(script)).toMatchInlineSnapshot(`
    "PONG
    OK
    OK
    QUEUED
    QUEUED
    1
    42
    value
    42
    "
  `);
});

testNeeding(['program:bash', 'postgresql'])('PostgreSQL: initdb, the server, and queries by a socket', async () => {
  const script = `
    export PGDATA=/tmp/data PGHOST=/tmp PGDATABASE=postgres
    initdb --auth=trust --no-sync > /tmp/initdb.log 2>&1 || { cat /tmp/initdb.log; exit 1; }
    pg_ctl start --wait --silent --log=/tmp/server.log --options="-k /tmp -h localhost" || { cat /tmp/server.log; exit 1; }
    ask() { psql --no-psqlrc --quiet --tuples-only --no-align -v ON_ERROR_STOP=1 "$@"; }
    ask -c 'select current_user, inet_server_addr() is null'
    ask -h localhost -c 'select inet_server_addr()'
    ask -c 'create table t as select n, md5(n::text) from generate_series(1, 50000) n; create index on t (md5)'
    ask -c 'begin; delete from t; rollback'
    ask -c 'show dynamic_shared_memory_type' -c 'set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0' \\
        -c 'select count(*), sum(n) from t' | sed '/^SET$/d'
    ask -c 'checkpoint'
    pg_ctl stop --wait --silent --mode=fast
    pg_controldata | sed -n 's/^Database cluster state: *//p'`;
  const path = `${postgresqlDirectory()}:/usr/local/bin:/usr/bin:/bin`;
  // It refuses to be root. Further groups an ordinary user could not give.
  expect(await printed(script, { user: 'postgres:postgres', env: { PATH: path } })).toMatchInlineSnapshot(`
    "postgres|t
    127.0.0.1
    posix
    50000|1250025000
    shut down
    "
  `);
});
