// What Debian's tools make is taken here, and what is made here they take, and see the same tree.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Image, type LayerStore, OverlayRootfs, runIsolated } from 'cloister';
import { expect } from 'vitest';
import { digests, newStore } from '../helpers/images.js';
import { testNeeding } from '../helpers/lane.js';
import { dockerRegistry } from '../helpers/registry.js';
import { patience } from '../helpers/repeats.js';
import { smallRoot, temporary } from './trees.js';

const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 28 });

/** Everything of a tree that an image can say, one line a file. */
function listing(directory: string): string {
  const all = run('find', directory, '-printf', '%P %y %m %U:%G %l %s %T@\n');
  const lines = all.split('\n').filter((line) => line !== '' && !line.startsWith(' '));
  // A directory's size is the file system's.
  return lines
    .map((line) => line.replace(/^(.* d \S+ \S+ +)\d+/, '$1-'))
    .sort()
    .join('\n');
}

/** A root made by hand, with what is not in every image: links, a setuid program, odd names, a device, xattrs. */
function oddRoot(): string {
  const root = smallRoot({ 'usr/file': 'file', 'gone/deep/file': '', 'empty/': '', 'link -> x': '' });
  run('ln', '-s', 'usr/file', join(root, 'symlink'));
  run('ln', join(root, 'usr/file'), join(root, 'hardlink'));
  run('chown', '-h', '33:44', join(root, 'usr/file'), join(root, 'symlink'));
  run('chmod', '4755', join(root, 'usr/file'));
  run('mkfifo', join(root, 'fifo'));
  run('setfattr', '-n', 'user.tag', '-v', 'value', join(root, 'usr/file'));
  writeFileSync(join(root, 'line\nbreak'), 'x');
  // umoci writes whole seconds.
  run('find', root, '-exec', 'touch', '-h', '-d', '@1700000000', '{}', '+');
  return root;
}

const tools = ['root', 'overlay', 'program:umoci', 'program:skopeo', 'program:setfattr'] as const;

/** A layout of that root, by umoci. */
function umociLayout(root: string): string {
  const directory = temporary();
  const layout = join(directory, 'layout');
  const bundle = join(directory, 'bundle');
  run('umoci', 'init', '--layout', layout);
  run('umoci', 'new', '--image', `${layout}:made`);
  run('umoci', 'unpack', '--image', `${layout}:made`, bundle);
  run('cp', '-a', `${root}/.`, `${bundle}/rootfs`);
  run('umoci', 'repack', '--image', `${layout}:made`, bundle);
  run(
    'umoci',
    'config',
    '--image',
    `${layout}:made`,
    '--config.env',
    'WHO=umoci',
    '--config.cmd',
    '/bin/probe',
    '--config.cmd',
    'env',
    '--config.workingdir',
    '/usr',
    '--config.stopsignal',
    'SIGINT',
  );
  return layout;
}

async function changed(store: LayerStore, image: Image): Promise<Image> {
  const root = await OverlayRootfs.create({ layers: image.layers });
  try {
    const script = [
      'create /new text',
      'unlink /hardlink',
      'unlink /gone/deep/file',
      'rmdir /gone/deep',
      'rmdir /gone',
      'create /gone now-a-file',
      'chmod 0600 /usr/file',
      'mkdir /empty/sub',
      'symlink /nowhere /empty/sub/link',
      'chown 7 8 /new',
    ];
    const { stdout } = await runIsolated('/bin/probe', script.flatMap((line) => ['--', ...line.split(' ')]).slice(1), {
      rootfs: root,
      capabilities: ['CAP_CHOWN', 'CAP_FOWNER', 'CAP_DAC_OVERRIDE'],
    });
    expect(
      stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line).errno),
    ).toEqual(script.map(() => null));
    const layer = await root.commit(store);
    return await store.createImage({ layers: [...image.layers, layer], config: image.config, name: 'changed' });
  } finally {
    await root[Symbol.asyncDispose]();
  }
}

/** Where the tree of an image is, as this library sees it. */
async function mounted<T>(image: Image, look: (directory: string) => T): Promise<T> {
  const root = await OverlayRootfs.create({ layers: image.layers, idMap: 'self' });
  try {
    const target = temporary();
    const mount = await root.mount(target);
    try {
      return look(target);
    } finally {
      await mount[Symbol.asyncDispose]();
    }
  } finally {
    await root[Symbol.asyncDispose]();
  }
}

testNeeding([...tools, 'program:podman'])(
  'an image of umoci runs here; a commit on it is what skopeo, umoci and podman see, too',
  async () => {
    const root = oddRoot();
    const layout = umociLayout(root);
    const store = await newStore();
    const image = await store.importImage(layout);
    expect(image.name).toBe('made');
    expect(image.config).toMatchObject({ Env: expect.arrayContaining(['WHO=umoci']), WorkingDir: '/usr', StopSignal: 'SIGINT' });
    expect(await mounted(image, listing)).toBe(listing(root));
    const [command, ...args] = image.argv();
    expect((await runIsolated(command, args, { rootfs: image })).stdout).toContain('umoci');

    const second = await changed(store, image);
    const expected = await mounted(second, listing);
    expect(expected).toContain('new f 644 7:8');
    expect(expected).not.toContain('hardlink');
    const directory = temporary();
    for (const format of ['oci-layout', 'oci-archive', 'docker-archive'] as const) await store.exportImage(second, join(directory, format), { format });

    run('umoci', 'unpack', '--image', `${join(directory, 'oci-layout')}:changed`, join(directory, 'by-umoci'));
    expect(listing(join(directory, 'by-umoci/rootfs'))).toBe(expected);

    for (const format of ['oci-layout', 'oci-archive', 'docker-archive'] as const) {
      const source = `${format === 'oci-layout' ? 'oci' : format}:${join(directory, format)}`;
      const copy = join(directory, `skopeo-${format}`);
      run('skopeo', '--insecure-policy', 'copy', '-q', source, `oci:${copy}:x`);
      const back = await (await newStore()).importImage(copy);
      expect([format, digests(back.layers), back.config]).toEqual([format, digests(second.layers), second.config]);
      // A layout is copied as it is.
      if (format !== 'docker-archive') expect(back.digest).toBe(second.digest);
    }

    const storage = join(directory, 'podman');
    const podman = (...args: string[]): string =>
      run(
        'podman',
        '--root',
        join(storage, 'root'),
        '--runroot',
        join(storage, 'run'),
        '--storage-driver',
        'vfs',
        '--events-backend',
        'none',
        '--cgroup-manager',
        'cgroupfs',
        ...args,
      );
    try {
      const loaded = podman('load', '-q', '-i', join(directory, 'docker-archive')).trim().split(' ').at(-1) as string;
      const inspected = JSON.parse(podman('image', 'inspect', loaded))[0];
      expect(inspected.RootFS.Layers).toEqual(digests(second.layers));
      const tree = podman('image', 'mount', loaded).trim();
      expect(listing(tree)).toBe(expected);
      podman('image', 'unmount', loaded);
      // And back from podman.
      podman('save', '-q', '-o', join(directory, 'saved.tar'), loaded);
      const saved = await (await newStore()).importImage(join(directory, 'saved.tar'));
      expect(digests(saved.layers)).toEqual(digests(second.layers));
    } finally {
      run('rm', '-rf', storage);
    }
  },
  180_000 * patience,
);

testNeeding([...tools, 'program:docker-registry'])(
  'skopeo → registry → pull, run, commit, push → skopeo: the same digests',
  async () => {
    const host = await dockerRegistry();
    const layout = umociLayout(oddRoot());
    run('skopeo', '--insecure-policy', 'copy', '-q', '--dest-tls-verify=false', `oci:${layout}:made`, `docker://${host}/a/b:1`);
    const inspect = (tag: string) => JSON.parse(run('skopeo', 'inspect', '--tls-verify=false', `docker://${host}/a/b:${tag}`));
    const store = await newStore();
    const image = await store.pull(`${host}/a/b:1`, { insecure: true });
    expect(image.digest).toBe(inspect('1').Digest);
    const second = await changed(store, image);
    await store.push(second, `${host}/a/b:2`, { insecure: true });
    const told = inspect('2');
    expect(told.Digest).toBe(second.digest);
    // What was pulled has kept its own bytes: the registry had them already.
    expect(told.Layers.slice(0, -1)).toEqual(inspect('1').Layers);
    const copy = join(temporary(), 'copy');
    run('skopeo', '--insecure-policy', 'copy', '-q', '--src-tls-verify=false', `docker://${host}/a/b:2`, `oci:${copy}:x`);
    const back = await (await newStore()).importImage(copy);
    expect([back.digest, digests(back.layers)]).toEqual([second.digest, digests(second.layers)]);
  },
  120_000 * patience,
);

testNeeding([...tools])(
  'zstd layers and multi-platform lists of skopeo are taken',
  async () => {
    const layout = umociLayout(oddRoot());
    const directory = temporary();
    run('skopeo', '--insecure-policy', 'copy', '-q', '--dest-compress-format', 'zstd', '--dest-compress', `oci:${layout}:made`, `dir:${directory}/zstd`);
    run('skopeo', '--insecure-policy', 'copy', '-q', `dir:${directory}/zstd`, `oci:${directory}/oci:z`);
    const [plain, zstd] = [await (await newStore()).importImage(layout), await (await newStore()).importImage(`${directory}/oci`)];
    expect(digests(zstd.layers)).toEqual(digests(plain.layers));
    expect(await mounted(zstd, listing)).toBe(await mounted(plain, listing));
  },
  120_000 * patience,
);

testNeeding(['program:umoci'])('an image of umoci runs for whoever this is', async () => {
  const root = smallRoot({ file: 'x' });
  const directory = temporary();
  const layout = join(directory, 'layout');
  const rootless = process.geteuid?.() === 0 ? [] : ['--rootless'];
  run('umoci', 'init', '--layout', layout);
  run('umoci', 'new', '--image', `${layout}:made`);
  run('umoci', 'unpack', ...rootless, '--image', `${layout}:made`, join(directory, 'bundle'));
  run('cp', '-a', `${root}/.`, join(directory, 'bundle/rootfs'));
  run('umoci', 'repack', '--image', `${layout}:made`, join(directory, 'bundle'));
  const store = await newStore();
  const image = await store.importImage(layout);
  const { stdout } = await runIsolated('/bin/probe', ['ls', '/'], { rootfs: image });
  expect(stdout).toContain('"file"');
  expect(await store.verify()).toMatchObject({ ok: true });
});
