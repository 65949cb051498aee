import { statSync } from 'node:fs';
import { join } from 'node:path';
import { type IdMap, runIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { inChild, startChild } from '../helpers/harness.js';
import { testNeeding } from '../helpers/lane.js';
import { ask, parseAnswer, startProbe } from '../helpers/probe.js';
import { saying } from './refusals.js';
import { temporary } from './trees.js';

const [uid, gid] = [process.geteuid?.() as number, process.getegid?.() as number];
const range = (inside: number, outside: number, count: number) => ({ inside, outside, count });

describe("'auto'", () => {
  testNeeding(['root'])('65,536 ids, the receipt tells which', async () => {
    const [ids] = await ask([['ids']]);
    expect(ids.uidMap).toEqual([range(0, expect.any(Number) as never, 65_536)]);
    const { isolation } = await runIsolated('true');
    expect(isolation.idMap).toEqual({ uids: [range(0, expect.any(Number) as never, 65_536)], gids: [range(0, expect.any(Number) as never, 65_536)] });
    const start = isolation.idMap?.uids[0]?.outside ?? 0;
    expect([start >= 0x70000000, start + 65_536 <= 0x80000000]).toEqual([true, true]);
  });

  testNeeding(['root'])('every id of them is one inside', async () => {
    for (const id of [1, 1000, 65_534, 65_535]) {
      const [ids, made] = await ask([['ids'], ['create', '/tmp/file']], { user: { uid: id, gid: id, groups: [id] } });
      expect(ids).toMatchObject({ ruid: id, rgid: id, groups: [id] });
      expect([id, made.errno]).toEqual([id, null]);
    }
  });

  testNeeding(['root'])('two processes of the host never share a range', async () => {
    const script = `
      import { spawnIsolated } from 'cloister';
      const all = Array.from({ length: 4 }, () => spawnIsolated('sleep', ['100'], { stdio: 'ignore' }));
      await Promise.all(all.map((one) => one.spawned));
      process.once('SIGUSR2', async () => {
        for (const one of all) one.kill('SIGKILL');
        const results = await Promise.all(all.map((one) => one.exited));
        console.log(JSON.stringify(results.map(({ isolation }) => isolation.idMap.uids[0].outside)));
      });
      console.log('all are there');`;
    const children = [startChild(script), startChild(script), startChild(script)];
    // None ends before the last one has begun.
    await Promise.all(children.map(({ lines }) => lines.until('all are there')));
    for (const child of children) child.kill('SIGUSR2');
    const starts = (await Promise.all(children.map(({ ended }) => ended))).flatMap(({ stdout, stderr }) => {
      expect(stderr).toBe('');
      return JSON.parse(stdout.split('\n')[1] ?? '') as number[];
    });
    expect(new Set(starts).size).toBe(12);
  });

  testNeeding(['root'])('a range is free again after its holder was killed', async () => {
    const script = `
      import { spawnIsolated } from 'cloister';
      const child = spawnIsolated('sleep', ['60']);
      await child.spawned;
      console.log('ready');
      setInterval(() => {}, 1000);`;
    await inChild(script, { killAt: 'ready' });
    const [ids] = await ask([['ids']]);
    expect(ids.uidMap).toHaveLength(1);
  });

  testNeeding(['unprivileged'])('an ordinary user without ids of /etc/subuid is itself', async () => {
    const [ids] = await ask([['ids']]);
    expect(ids.uidMap[0]).toEqual(range(0, uid, 1));
    expect(ids.gidMap[0]).toEqual(range(0, gid, 1));
    if (ids.uidMap.length === 1) expect(ids.setgroups).toBe('deny');
  });

  testNeeding(['unprivileged'])('and whoever it is inside, it is itself outside', async () => {
    const directory = temporary();
    // With ids of /etc/subuid, 1000 is one of those; so here nothing but itself is mapped.
    const [ids, made] = await ask([['ids'], ['create', '/data/file']], {
      idMap: 'self',
      user: { uid: 1000, gid: 1001 },
      mounts: [{ type: 'bind', source: directory, target: '/data' }],
    });
    expect(ids).toMatchObject({ ruid: 1000, rgid: 1001 });
    expect(made.errno).toBeNull();
    expect(statSync(join(directory, 'file'))).toMatchObject({ uid, gid });
  });

  testNeeding(['unprivileged', 'subuid', 'newuidmap'])('an ordinary user with such ids: itself is root, the ids are the rest', async () => {
    const [ids] = await ask([['ids']]);
    expect(ids.uidMap).toEqual([range(0, uid, 1), range(1, expect.any(Number) as never, expect.any(Number) as never)]);
    const [user] = await ask([['ids']], { user: { uid: 1000, gid: 1000, groups: [5] } });
    expect(user).toMatchObject({ ruid: 1000, rgid: 1000, groups: [5], setgroups: 'allow' });
  });
});

describe("'self'", () => {
  test('one id, and it is ours', async () => {
    const [ids] = await ask([['ids']], { idMap: 'self' });
    expect(ids.uidMap).toEqual([range(0, uid, 1)]);
    expect(ids.gidMap).toEqual([range(0, gid, 1)]);
  });

  test('files that it makes are ours', async () => {
    const directory = temporary();
    await ask([['create', '/data/file']], { idMap: 'self', mounts: [{ type: 'bind', source: directory, target: '/data' }] });
    expect(statSync(join(directory, 'file'))).toMatchObject({ uid, gid });
  });

  test('as another user', async () => {
    const [ids] = await ask([['ids']], { idMap: 'self', user: { uid: 33, gid: 44 } });
    expect(ids).toMatchObject({ ruid: 33, rgid: 44, uidMap: [range(33, uid, 1)], gidMap: [range(44, gid, 1)] });
  });
});

describe('ranges', () => {
  testNeeding(['root'])("of root's choice", async () => {
    const idMap: IdMap = { uids: [range(0, 200_000, 1), range(1, 300_000, 1000)], gids: [range(0, 400_000, 2000)] };
    const [ids, status] = await ask([['ids'], ['stat', '/etc/passwd']], { idMap });
    expect(ids).toMatchObject({ ruid: 0, uidMap: idMap.uids, gidMap: idMap.gids });
    // Files of the host keep their owners.
    expect(status).toMatchObject({ uid: 0, gid: 0 });
  });

  testNeeding(['root'])('without a root', async () => {
    const idMap: IdMap = { uids: [range(1000, 200_000, 10)], gids: [range(1000, 200_000, 10)] };
    const [ids, made] = await ask([['ids'], ['create', '/dev/shm/file']], { idMap, user: { uid: 1005, gid: 1005 } });
    expect(ids).toMatchObject({ ruid: 1005, rgid: 1005, uidMap: idMap.uids });
    expect(made.errno).toBeNull();
    expect(await saying(runIsolated('true', { idMap }))).toMatchInlineSnapshot(`
      "uid 0 is not mapped, so nobody can have it inside
        Choose an id of the map, or another idMap."
    `);
  });

  testNeeding(['root'])('at the same time as others', async () => {
    const maps = [1, 2, 3].map((number): IdMap => ({ uids: [range(0, number * 100_000, 1000)], gids: [range(0, number * 100_000, 1000)] }));
    const boxes = maps.map((idMap) => startProbe(['ids', 'sleep'], { idMap }));
    try {
      const seen = await Promise.all(boxes.map(async ({ lines }) => parseAnswer('ids', await lines.next()).uidMap));
      expect(seen).toEqual(maps.map(({ uids }) => uids));
    } finally {
      await Promise.all(boxes.map(({ process: box }) => box[Symbol.asyncDispose]()));
    }
  });

  testNeeding(['unprivileged'])("of one's own id only, for an ordinary user", async () => {
    const [ids] = await ask([['ids']], { idMap: { uids: [range(7, uid, 1)], gids: [range(8, gid, 1)] }, user: { uid: 7, gid: 8 } });
    expect(ids).toMatchObject({ ruid: 7, rgid: 8 });
  });

  test('that overlap are a TypeError', async () => {
    const idMap = { uids: [range(0, 1000, 10), range(5, 2000, 10)], gids: [range(0, 1000, 1)] };
    await expect(runIsolated('true', { idMap })).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'idMap.uids' takes ranges { inside, outside, count } of whole numbers that do not overlap; got an array of 2]`,
    );
  });
});
