// What the machine has one of for all: how much of it a sandbox can take.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { LayerStore, OverlayRootfs, type SpawnOptions } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { testNeeding } from '../helpers/lane.js';
import { ask, askHost } from '../helpers/probe.js';
import { smallRoot, temporary } from '../integration/trees.js';

test('descriptors: by rlimits', async () => {
  const [limited] = await ask([['exhaust-descriptors', 5000]], { rlimits: { nofile: 64 } });
  expect(limited).toMatchObject({ errno: 'EMFILE' });
  expect(limited.made).toBeLessThan(64);
  const [free] = await ask([['exhaust-descriptors', 200]], { rlimits: { nofile: 512 } });
  expect(free).toMatchObject({ errno: null, made: 200 });
});

test('bytes of the writable layer, of /tmp and of /dev/shm', async () => {
  await using rootfs = await OverlayRootfs.host({ size: '2M' });
  const [etc, shm] = await ask(
    [
      ['fill', '/etc/filled', 8 * 2 ** 20],
      ['fill', '/dev/shm/filled', 80 * 2 ** 20],
    ],
    { rootfs },
  );
  expect([etc.errno, shm.errno]).toEqual(['ENOSPC', 'ENOSPC']);
  expect(etc.written).toBeLessThanOrEqual(2 * 2 ** 20);
  expect(shm.written).toBeLessThanOrEqual(64 * 2 ** 20);
});

test('inodes: so many, however small the files', async () => {
  await using rootfs = await OverlayRootfs.host({ size: '2M' });
  const [etc] = await ask([['exhaust-inodes', '/etc', 100_000]], { rootfs });
  expect(etc.errno).toBe('ENOSPC');
  expect(etc.made).toBeLessThan(5000);
  const [shm] = await ask([['exhaust-inodes', '/dev/shm', 100_000]]);
  expect(shm.errno).toBe('ENOSPC');
});

test('terminals: some, and never those that are kept for the host', async () => {
  const [inside] = await ask([['exhaust-terminals', 5000]]);
  expect(inside.made).toBeLessThanOrEqual(1024);
  const [host] = await askHost([['exhaust-terminals', 2]]);
  expect(host).toMatchObject({ errno: null, made: 2 });
});

test('pipes: the pages of a user, who is another one for each sandbox of root', async () => {
  const options: SpawnOptions = { rlimits: { nofile: 1024 } };
  const [inside] = await ask([['exhaust-pipes', 200]], options);
  // fs.pipe-user-pages-soft: 64 MiB for who has no CAP_SYS_RESOURCE where the machine is.
  expect(inside.made).toBeLessThanOrEqual(64);
});

testNeeding(['root', 'controller:pids'])('processes: by a control group', async () => {
  const [bomb] = await ask([['forkbomb-light', 500]], { cgroup: { pids: 20 } });
  expect(bomb.forked).toBeLessThan(20);
});

test('descriptors of this process: a tree that is read holds some for each of its levels', async () => {
  const [upper, target] = [temporary(), temporary()];
  await using root = await OverlayRootfs.create({ layers: [smallRoot()], upper });
  const store = await LayerStore.open(join(temporary(), 'store'));
  onTestFinished(() => store[Symbol.asyncDispose]());
  mkdirSync(join(upper, 'd/'.repeat(200)), { recursive: true });
  const changes = async (): Promise<number> => {
    let count = 0;
    for await (const _ of root.changes()) count++;
    return count;
  };
  expect(await changes()).toBe(200);
  await root.commit(store);
  mkdirSync(join(upper, 'd/'.repeat(201)));
  const diff = async (): Promise<void> => {
    for await (const _ of root.diff());
  };
  for (const read of [changes, diff, () => root.commit(store), () => root.fork(), () => root.apply(target)]) {
    await expect(read()).rejects.toMatchObject({
      code: 'ERR_CLOISTER_LAYER',
      message: expect.stringContaining('more than 200 directories are in each other\n  A program has made this in the root'),
    });
  }
  await root.reset();
  expect(await changes()).toBe(0);
});
