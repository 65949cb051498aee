/** What a program may do to a tree, at random. */
import * as fs from 'node:fs';
import type { Random } from '../helpers/random.js';

const names = ['a', 'b', 'c', 'dir', 'x y', 'ü', '-n', 'A', '.hidden', 'n'.repeat(120), '\xff\xfe', 'new\nline', 'a=b%', '.w'];

const join = (directory: Buffer, name: Buffer): Buffer => Buffer.concat([directory, Buffer.from('/'), name]);

interface Found {
  readonly path: Buffer;
  readonly type: 'file' | 'directory' | 'other';
}

function all(root: Buffer): Found[] {
  const found: Found[] = [];
  const walk = (directory: Buffer): void => {
    for (const entry of fs.readdirSync(directory, { encoding: 'buffer', withFileTypes: true }) as unknown as {
      name: Buffer;
      isDirectory(): boolean;
      isFile(): boolean;
    }[]) {
      const path = join(directory, entry.name);
      found.push({ path, type: entry.isDirectory() ? 'directory' : entry.isFile() ? 'file' : 'other' });
      if (entry.isDirectory()) walk(path);
    }
  };
  walk(root);
  return found;
}

export interface Ability {
  /** Ids that files may be given. */
  readonly owners: readonly number[];
  readonly devices: boolean;
  setAttribute(path: Buffer, name: string, value: Buffer): void;
  makeNode(path: Buffer, kind: 'fifo' | 'device'): void;
}

/** One step; undefined if it could not be done, which is told by the kernel. */
function step(root: Buffer, random: Random, ability: Ability): string | undefined {
  const found = all(root);
  const directories = [{ path: root, type: 'directory' as const }, ...found.filter(({ type }) => type === 'directory')];
  const files = found.filter(({ type }) => type === 'file');
  const place = (): Buffer => join(random.pick(directories).path, Buffer.from(random.pick(names), 'latin1'));
  const any = (): Buffer => (found.length > 0 ? random.pick(found).path : place());
  const file = (): Buffer => random.pick(files).path;
  const verbs: Readonly<Record<string, () => void>> = {
    create: () => fs.writeFileSync(place(), random.bytes(random.below(200)), { flag: 'wx' }),
    write: () => fs.writeFileSync(file(), random.bytes(random.below(300))),
    append: () => fs.appendFileSync(file(), random.bytes(1 + random.below(50))),
    'open and not write': () => fs.closeSync(fs.openSync(file(), 'r+')),
    'write the same, with the same times': () => {
      const path = file();
      const status = fs.statSync(path);
      fs.writeFileSync(path, fs.readFileSync(path));
      fs.utimesSync(path, status.atime, status.mtime);
    },
    truncate: () => fs.truncateSync(file(), random.below(5000)),
    mkdir: () => fs.mkdirSync(place()),
    'mkdir deep': () => fs.mkdirSync(join(place(), Buffer.from('deep/er')), { recursive: true }),
    rename: () => fs.renameSync(any(), place()),
    'rename over': () => fs.renameSync(any(), any()),
    link: () => fs.linkSync(file(), place()),
    unlink: () => fs.unlinkSync(any()),
    remove: () => remove(any()),
    'directory to file': () => {
      const { path } = random.pick(directories.slice(1));
      remove(path);
      fs.writeFileSync(path, 'was a directory');
    },
    'file to directory': () => {
      const path = file();
      fs.unlinkSync(path);
      fs.mkdirSync(path);
      fs.writeFileSync(join(path, Buffer.from('inside')), 'was a file');
    },
    'delete and make again': () => {
      const { path } = random.pick(directories.slice(1));
      remove(path);
      fs.mkdirSync(path);
    },
    chmod: () => {
      const { path, type } = random.pick(found.filter(({ type }) => type !== 'other'));
      fs.chmodSync(path, (type === 'directory' ? 0o700 : 0o600) | random.below(0o100) | (random.below(8) === 0 ? 0o1000 : 0));
    },
    chown: () => fs.lchownSync(any(), random.pick(ability.owners), random.pick(ability.owners)),
    symlink: () => fs.symlinkSync(random.pick(['a', '../b', '/etc/passwd', 'nowhere', 't'.repeat(150), '.']), place()),
    xattr: () =>
      ability.setAttribute(
        random.pick(found.filter(({ type }) => type !== 'other')).path,
        `user.${random.pick(['a', 'b.c', 'e=q%'])}`,
        random.bytes(random.below(40)),
      ),
    times: () => fs.lutimesSync(any(), 1, random.below(2 ** 31) + random.next()),
    fifo: () => ability.makeNode(place(), 'fifo'),
    device: () => (ability.devices ? ability.makeNode(place(), 'device') : undefined),
  };
  const verb = random.pick(Object.keys(verbs));
  try {
    verbs[verb]?.();
    return verb;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined && !(error instanceof RangeError)) throw error;
    return undefined;
  }
}

const remove = (path: Buffer): void => fs.rmSync(path as unknown as string, { recursive: true });

/** What it did. */
export function live(root: string, random: Random, ability: Ability, steps: number): string[] {
  return Array.from({ length: steps }, () => step(Buffer.from(root), random, ability)).filter((verb) => verb !== undefined);
}
