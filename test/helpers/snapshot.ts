/** All that can be known of a tree, to compare it with another one. */
import { execFileSync } from 'node:child_process';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface Node {
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: string;
  readonly mtime: bigint;
  /** Of a file its bytes, of a symlink its target, as latin1. */
  readonly contents: string;
  readonly attributes: string;
  readonly inode: string;
}

/** By path (as latin1, '' is the tree itself). */
export type Snapshot = ReadonlyMap<string, Node>;

export interface SnapshotOptions {
  /** Ids as they are seen here → as they are meant. */
  readonly uid?: (id: number) => number;
  readonly gid?: (id: number) => number;
  /** Attributes too; takes a process. */
  readonly attributes?: boolean;
}

const kinds: readonly [test: (status: ReturnType<typeof lstatSync>) => boolean | undefined, name: string][] = [
  [(status) => status?.isDirectory(), 'directory'],
  [(status) => status?.isFile(), 'file'],
  [(status) => status?.isSymbolicLink(), 'symlink'],
  [(status) => status?.isFIFO(), 'fifo'],
  [(status) => status?.isSocket(), 'socket'],
  [(status) => status?.isBlockDevice(), 'block-device'],
  [(status) => status?.isCharacterDevice(), 'char-device'],
];

export function snapshot(root: string, options: SnapshotOptions = {}): Map<string, Node> {
  const nodes = new Map<string, Node>();
  const same = (id: number): number => id;
  const { uid = same, gid = same } = options;
  const attributes = options.attributes ? attributesOf(root) : new Map<string, string>();
  const walk = (path: Buffer, name: string): void => {
    const status = lstatSync(path, { bigint: true });
    const type = kinds.find(([test]) => test(status as never))?.[1] ?? '?';
    const device = type.endsWith('-device') ? String(status.rdev) : '';
    const contents = type === 'file' ? readFileSync(path) : type === 'symlink' ? readlinkSync(path, 'buffer') : Buffer.alloc(0);
    nodes.set(name, {
      type,
      mode: Number(status.mode & 0o7777n),
      uid: uid(Number(status.uid)),
      gid: gid(Number(status.gid)),
      rdev: device,
      mtime: status.mtimeNs,
      contents: contents.toString('latin1'),
      attributes: attributes.get(name) ?? '',
      inode: `${status.dev}:${status.ino}`,
    });
    if (type !== 'directory') return;
    for (const entry of readdirSync(path, 'buffer')) {
      const below = Buffer.concat([path, Buffer.from('/'), entry]);
      const text = entry.toString('latin1');
      walk(below, name === '' ? text : `${name}/${text}`);
    }
  };
  // A descriptor of /proc/self/fd is a link itself.
  walk(Buffer.from(`${root}/.`), '');
  return nodes;
}

/** getfattr(1) escapes names as \\ooo. Only user.* and file capabilities: others are the host's own. */
function attributesOf(root: string): Map<string, string> {
  const output = execFileSync('getfattr', ['-R', '-P', '-h', '-d', '-m', '^(user|security\\.capability|system\\.posix_acl)', '-e', 'hex', '.'], {
    cwd: root,
    encoding: 'latin1',
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 2 ** 26,
  });
  const found = new Map<string, string>();
  for (const block of output.split('\n\n')) {
    const lines = block.split('\n').filter((line) => line !== '');
    const head = lines.shift();
    if (!head?.startsWith('# file: ')) continue;
    const name = head.slice(8).replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 8)));
    const own = lines.filter((line) => !/^user\.(cloister|overlay)\./.test(line));
    found.set(name === '.' ? '' : name.replace(/^\.\//, ''), own.sort().join('\n'));
  }
  return found;
}

const comparable = ({ inode, ...node }: Node): string => JSON.stringify({ ...node, mtime: String(node.mtime) });

/** Lines that say what is different; hard links are compared by who shares an inode with whom. */
export function differencesOf(a: Snapshot, b: Snapshot, ignore: (path: string, node: Node) => Partial<Node> = () => ({})): string[] {
  const lines: string[] = [];
  for (const path of new Set([...a.keys(), ...b.keys()])) {
    const [x, y] = [a.get(path), b.get(path)];
    if (!x || !y) lines.push(`${JSON.stringify(path)} is only in the ${x ? 'first' : 'second'}`);
    else {
      const [left, right] = [comparable({ ...x, ...ignore(path, x) }), comparable({ ...y, ...ignore(path, y) })];
      if (left !== right) lines.push(`${JSON.stringify(path)}: ${left} / ${right}`);
    }
  }
  return lines;
}

/** Two names of one file, each pair of them. */
export function linkedPairs(tree: Snapshot): Set<string> {
  const groups = new Map<string, string[]>();
  for (const [path, { type, inode }] of tree) if (type !== 'directory') groups.set(inode, [...(groups.get(inode) ?? []), path]);
  return new Set([...groups.values()].flatMap((paths) => paths.flatMap((a) => paths.filter((b) => a < b).map((b) => `${a} = ${b}`))));
}
