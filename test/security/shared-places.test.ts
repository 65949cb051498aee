// Directories of the host that another user may write to as well: what that user puts there, before or meanwhile, must not lead to anything else.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, copyFileSync, existsSync, lstatSync, mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LayerStore, OverlayRootfs, runIsolated } from 'cloister';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { native } from '../../dist/native.js';
import * as files from '../../dist/tree/files.js';
import { Placement } from '../../dist/tree/placement.js';
import { testNeeding } from '../helpers/lane.js';
import { smallRoot, temporary } from '../integration/trees.js';

const stranger = 65_533;

describe('a layer store', () => {
  /** As it would be made by hand: complete, and with what is to be swept away somewhere else. */
  function planted(mode: number): { directory: string; victim: string } {
    const place = temporary({ 'victim/kept': 'x', 'store/version': 'cloister layer store 1\n', 'store/lock': '', 'store/blobs/sha256/': '' });
    const directory = join(place, 'store');
    for (const name of ['tars', 'layers', 'chains', 'images', 'names', 'partial']) mkdirSync(join(directory, name));
    symlinkSync(join(place, 'victim'), join(directory, 'temp'));
    chmodSync(directory, mode);
    return { directory, victim: join(place, 'victim') };
  }

  testNeeding(['root'])('is not taken from another user', async () => {
    const { directory, victim } = planted(0o755);
    chownSync(directory, stranger, stranger);
    await expect(LayerStore.open(directory)).rejects.toMatchObject({ code: 'ERR_CLOISTER_STORE', message: expect.stringContaining(`the user ${stranger}'s`) });
    expect(readdirSync(victim)).toEqual(['kept']);
  });

  test.each([0o777, 0o1777, 0o720])('is none where others write (%o)', async (mode) => {
    const { directory, victim } = planted(mode);
    await expect(LayerStore.open(directory)).rejects.toMatchObject({ code: 'ERR_CLOISTER_STORE', message: expect.stringContaining('others may write to it') });
    expect(readdirSync(victim)).toEqual(['kept']);
  });
});

describe('a symlink where the work directory is to be', () => {
  const isNotFollowed = (driver: 'overlay' | 'fuse-overlayfs') => async (): Promise<void> => {
    const place = temporary({ 'upper/': '', 'victim/work/kept': 'x', 'victim/kept': 'x' });
    symlinkSync(join(place, 'victim'), join(place, '.upper.work'));
    const make = (): Promise<OverlayRootfs> => OverlayRootfs.create({ layers: [smallRoot()], upper: join(place, 'upper'), driver });
    await expect(
      make().then(async (root) => {
        onTestFinished(() => root[Symbol.asyncDispose]());
        await runIsolated('/bin/probe', ['ls', '/'], { rootfs: root });
        await root.reset();
      }),
    ).rejects.toMatchObject({ errnoName: 'ENOTDIR' });
    expect([existsSync(join(place, 'victim/work/kept')), existsSync(join(place, 'victim/kept'))]).toEqual([true, true]);
  };
  testNeeding(['root', 'overlay'])('is not followed', isNotFollowed('overlay'));
  testNeeding(['root', 'fuse', 'program:fuse-overlayfs'])('is not followed for fuse-overlayfs', isNotFollowed('fuse-overlayfs'));
});

describe('what is applied', () => {
  testNeeding(['root'])('makes no set-id program of what has taken a directory’s place', () => {
    const place = temporary({ 'from/d/': '', 'target/': '' });
    chmodSync(join(place, 'from/d'), 0o6755);
    const [from, target] = [native().openFile(join(place, 'from')), native().openFile(join(place, 'target'))];
    onTestFinished(() => void [native().close(from), native().close(target)]);
    const name = Buffer.from('d');
    const status = files.statusOf(from, name, name) as files.Status;
    const makeDirectory = native().files.makeDirectory;
    vi.spyOn(native().files, 'makeDirectory').mockImplementation((fd, made, mode) => {
      const result = makeDirectory(fd, made, mode);
      const path = join(place, 'target', Buffer.from(made).toString());
      renameSync(path, join(place, 'away'));
      writeFileSync(path, '#!/bin/sh\n');
      chownSync(path, stranger, stranger);
      return result;
    });
    onTestFinished(() => void vi.restoreAllMocks());
    const placement = new Placement(target, { uid: (id) => id, gid: (id) => id }, true);
    expect(() => placement.directory(target, { directory: from, name, path: name, status }, undefined)).toThrow(/ESTALE/);
    // A program of that user's is there perhaps, as it was.
    for (const left of readdirSync(join(place, 'target'))) expect(lstatSync(join(place, 'target', left))).toMatchObject({ uid: stranger });
  });
});

describe('a file on which its owner has a lease', () => {
  /** fcntl(2): F_SETLEASE, F_WRLCK. Whoever opens it waits for the owner, or for 45 seconds. */
  async function lease(path: string): Promise<void> {
    const script = '$|=1; open(F, "<", $ARGV[0]); $SIG{IO} = "IGNORE"; print fcntl(F, 1024, 1) ? "leased" : $!; sleep 20';
    const owner = spawn('perl', ['-e', script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    onTestFinished(() => void owner.kill('SIGKILL'));
    const [said] = await once(owner.stdout, 'data');
    expect(String(said)).toBe('leased');
  }

  testNeeding(['program:perl'])('is not waited for in a tree', async () => {
    const place = temporary({ file: 'x' });
    await lease(join(place, 'file'));
    const fd = native().openFile(place);
    onTestFinished(() => void native().close(fd));
    const name = Buffer.from('file');
    expect(() => files.openFile(fd, name, name)).toThrow(/EAGAIN/);
  });

  testNeeding(['program:perl'])('is not waited for in a layout', async () => {
    const place = temporary({ 'layout/oci-layout': '{"imageLayoutVersion":"1.0.0"}', 'layout/index.json': '{}' });
    const store = await LayerStore.open(join(place, 'store'));
    onTestFinished(() => store[Symbol.asyncDispose]());
    await lease(join(place, 'layout/oci-layout'));
    await expect(store.importImage(join(place, 'layout'))).rejects.toMatchObject({ errnoName: 'EAGAIN' });
  });
});

testNeeding(['root', 'overlay', 'program:setpriv'])('a root that is mounted gives nobody the ids of its set-id programs', async () => {
  const place = temporary({ 'layer/': '', 'target/': '' });
  copyFileSync('/usr/bin/id', join(place, 'layer/id'));
  chmodSync(join(place, 'layer/id'), 0o6755);
  const target = join(place, 'target');
  await using root = await OverlayRootfs.create({ layers: [join(place, 'layer')], idMap: 'self' });
  await using _ = await root.mount(target);
  const as = (program: string): string =>
    execFileSync('setpriv', [`--reuid=${stranger}`, `--regid=${stranger}`, '--clear-groups', program, '-u'], { encoding: 'utf8' }).trim();
  expect(as(join(target, 'id'))).toBe(String(stranger));
});

testNeeding(['root', 'overlay'])('a writable layer is emptied whatever names are in it', async () => {
  const upper = temporary();
  await using root = await OverlayRootfs.create({ layers: [smallRoot()], upper });
  let path = join(upper, '-');
  for (let depth = 0; depth < 300; depth++) path = join(path, 'd');
  mkdirSync(path, { recursive: true });
  for (const name of ['.cloister-deep-0', '.cloister-deep-1']) writeFileSync(join(upper, name), '');
  await root.reset();
  expect(readdirSync(upper)).toEqual([]);
});
