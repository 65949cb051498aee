// What a person reads who does what everybody does at first: paths of the host, whole command lines, names of other tools.
import { chmodSync } from 'node:fs';
import { runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { saying } from './refusals.js';
import { temporary } from './trees.js';

const wrongly = (options: object): string => {
  try {
    spawnIsolated('true', [], options as SpawnOptions);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('it was accepted');
};

afterEach(() => void vi.unstubAllEnvs());

describe('what is on the host, and not inside', () => {
  test('a program, by its path', async () => {
    const directory = temporary({ tool: '#!/bin/sh\n' });
    expect(await saying(runIsolated(`${directory}/tool`), directory)).toMatchInlineSnapshot(`
      "ENOENT: execute the program DIR/tool (execve): there is no DIR/tool in the root
        It is there on this host, but not in the root. To bring it in: mounts: [{ type: 'bind', source: 'DIR/tool', target: 'DIR/tool', readonly: true }]."
    `);
  });

  test('a program, by its name', async () => {
    const directory = temporary({ 'tool-of-mine': '#!/bin/sh\n' });
    chmodSync(`${directory}/tool-of-mine`, 0o755);
    vi.stubEnv('PATH', `${directory}:${process.env['PATH']}`);
    expect(await saying(runIsolated('tool-of-mine', [], { env: { PATH: '/usr/bin:/bin' } }), directory)).toMatchInlineSnapshot(`
      "ENOENT: execute the program tool-of-mine (execve): there is no program 'tool-of-mine' in the root's PATH
        Looked for, inside: /usr/bin/tool-of-mine, /bin/tool-of-mine. On this host it is DIR/tool-of-mine: \`mounts\` can bring it in, and env.PATH lead to it."
    `);
  });

  test('an interpreter', async () => {
    const directory = temporary({ interpreter: '' });
    const mounts = [{ type: 'file', target: '/script', contents: `#!${directory}/interpreter\n`, mode: 0o755 }] as const;
    expect(await saying(runIsolated('/script', [], { mounts }), directory)).toMatchInlineSnapshot(`
      "ENOENT: execute the program /script (execve): /script exists inside, but the interpreter of its first line, DIR/interpreter, does not
        It is there on this host, but not in the root. To bring it in: mounts: [{ type: 'bind', source: 'DIR/interpreter', target: 'DIR/interpreter', readonly: true }]."
    `);
  });

  test('a working directory', async () => {
    const directory = temporary();
    expect(await saying(runIsolated('true', { cwd: directory }), directory)).toMatchInlineSnapshot(`
      "ENOENT: enter the working directory DIR (openat2): there is no directory DIR in the root
        It is there on this host, but not in the root. To bring it in: mounts: [{ type: 'bind', source: 'DIR', target: 'DIR', readonly: true }]."
    `);
  });
});

describe('what is no program', () => {
  test('a command line', async () => {
    expect(await saying(runIsolated("echo it's"))).toMatchInlineSnapshot(`
      "ENOENT: execute the program echo it's (execve): there is no program 'echo it\\'s' in the root
        The command is the name of a program, and its arguments are a list: ('sh', ['-c', 'echo it\\'s'])."
    `);
    expect(await saying(runIsolated('ls -l /tmp'))).toMatchInlineSnapshot(`
      "ENOENT: execute the program ls -l /tmp (execve): there is no program 'ls -l /tmp' in the root
        The command is the name of a program, and its arguments are a list: ('ls', ['-l', '/tmp']), or, for a shell, ('sh', ['-c', 'ls -l /tmp'])."
    `);
    expect(await saying(runIsolated('ls | wc -l', [], { env: { PATH: '/usr/bin:/bin' } }))).toMatchInlineSnapshot(`
      "ENOENT: execute the program ls | wc -l (execve): there is no program 'ls | wc -l' in the root
        The command is the name of a program, and its arguments are a list: ('sh', ['-c', 'ls | wc -l'])."
    `);
  });

  test('a relative path', async () => {
    expect(await saying(runIsolated('./run.sh'))).toMatchInlineSnapshot(`
      "ENOENT: execute the program ./run.sh (execve): there is no ./run.sh in the root
        The path is looked up inside the sandbox, not on the host. A relative one begins at \`cwd\`. \`mounts\` can bring it in."
    `);
  });

  test('files of other systems', async () => {
    const bytes = {
      exe: '4d5a90',
      mach: 'cffaedfe07000001',
      universal: 'cafebabe00000002',
      class: 'cafebabe00000037',
      wasm: '0061736d01000000',
      jar: '504b0304',
      gz: '1f8b08',
    };
    const texts = await Promise.all(
      Object.entries({ ...bytes, bom: Buffer.from('\ufeff#!/bin/sh\n').toString('hex') }).map(([name, hex]) => {
        const mounts = [{ type: 'file', target: `/x.${name}`, contents: Buffer.from(hex, 'hex'), mode: 0o755 }] as const;
        return saying(runIsolated(`/x.${name}`, { mounts }));
      }),
    );
    expect(texts.map((text) => text.replace(/^.*\): /, ''))).toMatchInlineSnapshot(`
      [
        "/x.exe is a program for Windows",
        "/x.mach is a program for macOS",
        "/x.universal is a program for macOS",
        "/x.class is Java bytecode, which \`java\` executes",
        "/x.wasm is a WebAssembly module, which a runtime executes",
        "/x.jar is a zip archive (a jar, for one)",
        "/x.gz is a file that gzip has compressed",
        "/x.bom is a script with a byte order mark before its '#!'",
      ]
    `);
  });

  test('a script whose interpreter may not be executed', async () => {
    const mounts = [{ type: 'file', target: '/script', contents: '#!/etc/passwd\n', mode: 0o755 }] as const;
    expect(await saying(runIsolated('/script', { mounts }))).toMatchInlineSnapshot(`
      "EACCES: execute the program /script (execve): /script exists inside, but may not be executed
        It, or /etc/passwd, which its first line names, lacks the x permission for this user, is a directory, lies below one that may not be searched, or on a mount that is noexec."
    `);
  });
});

test('targets in what shows the kernel', async () => {
  const mounts = [{ type: 'file', target: '/proc/nothing', contents: '' }] as const;
  expect(await saying(runIsolated('true', { mounts }))).toMatchInlineSnapshot(`
    "ENOENT: mount file /proc/nothing (open): nothing new can be made in the sandbox's /proc
      Mount over what is there, or choose a target elsewhere."
  `);
});

test('options by the names of other tools', () => {
  expect([
    ...[{ uid: 1000 }, { shell: true }, { memory: '1G' }, { volumes: [] }, { image: 'debian' }].map(wrongly),
    wrongly({ constructor: 1 }),
    wrongly({ nothing: 1 }),
  ]).toMatchInlineSnapshot(`
    [
      "option 'uid' takes nothing: there is no such option, but user: { uid }; got 1000",
      "option 'shell' takes nothing: there is no such option, but the shell as the command: ('sh', ['-c', '…']); got true",
      "option 'memory' takes nothing: there is no such option, but cgroup: { memory }; got "1G"",
      "option 'volumes' takes nothing: there is no such option, but mounts; got an array of 0",
      "option 'image' takes nothing: there is no such option, but rootfs: an Image; got "debian"",
      "option 'constructor' takes nothing: there is no such option; got 1",
      "option 'nothing' takes nothing: there is no such option; got 1",
    ]
  `);
});
