// Row 4: what others do, as a Node program would use them.

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { bench, build, program } from './build.mjs';
import { timeSpawn } from './contest.mjs';

/** name → { once, close }, and why each of the others is missing. `hidden`: bench/build lies below what the sandbox has empty. */
export async function openPeers(track, hidden) {
  const peers = {};
  const missing = {};
  const found = (name) => {
    try {
      return execFileSync('/bin/sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim();
    } catch {
      missing[name] = `not installed (Debian: apt-get install ${name === 'bwrap' ? 'bubblewrap' : name})`;
      return undefined;
    }
  };
  const tryOnce = async (name, peer) => {
    try {
      await peer.once();
      peers[name] = peer;
    } catch (error) {
      missing[name] = error.message;
      await peer.close();
    }
  };
  const bwrap = found('bwrap');
  if (bwrap) {
    // 0.8 has no overlay: a read-only bind of the root stands for it.
    const args = ['--unshare-all', '--uid', '0', '--gid', '0', '--ro-bind', '/', '/', '--tmpfs', '/tmp', '--proc', '/proc', '--dev', '/dev'];
    if (hidden) args.push('--ro-bind', build, build);
    args.push('--hostname', 'bench', '--cap-drop', 'ALL', '--die-with-parent', '--new-session', program);
    await tryOnce('bwrap', { once: timeSpawn(() => spawn(bwrap, args, { stdio: 'ignore' })), close: async () => {} });
  }
  for (const name of ['crun', 'runc']) {
    const path = found(name);
    if (!path) continue;
    if (process.getuid() !== 0) missing[name] = 'needs root here: an overlay root and a cgroup2 of its own';
    else await tryOnce(name, ociPeer(path, name, track, hidden));
  }
  return { peers, missing };
}

function ociPeer(runtime, name, track, hidden) {
  const bundle = join(build, `bundle-${name}-${process.pid}`);
  mkdirSync(bundle);
  const server = track(
    spawn('unshare', ['-m', process.execPath, join(bench, 'oci-server.mjs'), runtime, bundle, program, ...(hidden ? [build] : [])], { stdio: 'pipe' }),
  );
  const waiting = [];
  let text = '';
  let errors = '';
  let over;
  server.stdin.on('error', () => {});
  server.stderr.setEncoding('utf8').on('data', (chunk) => {
    errors += chunk;
  });
  server.stdout.setEncoding('utf8').on('data', (chunk) => {
    const lines = (text + chunk).split('\n');
    text = lines.pop();
    for (const line of lines) waiting.shift()?.resolve(Number(line));
  });
  const fail = (message) => {
    over = new Error(message);
    for (const { reject } of waiting.splice(0)) reject(over);
  };
  const ended = new Promise((resolve) => {
    server.on('error', (error) => fail(error.message));
    server.on('close', () => {
      fail(errors.trim().split('\n').at(-1) || `${name} ended`);
      resolve();
    });
  });
  return {
    once: () =>
      new Promise((resolve, reject) => {
        if (over) return reject(over);
        waiting.push({ resolve, reject });
        server.stdin.write('\n');
      }),
    close: async () => {
      server.stdin.end();
      await ended;
      rmSync(bundle, { recursive: true, force: true });
    },
  };
}
