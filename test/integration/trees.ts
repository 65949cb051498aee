/** Directories of the host's for one test, gone after it. */
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';
import { fixture } from '../helpers/fixtures.js';

/** Path → contents; a value that begins with '-> ' is a symlink, a path that ends with '/' a directory. */
export type Tree = Readonly<Record<string, string>>;

export function temporary(tree: Tree = {}): string {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  chmodSync(directory, 0o755);
  plant(directory, tree);
  return directory;
}

export function plant(directory: string, tree: Tree): void {
  for (const [name, contents] of Object.entries(tree)) {
    const path = join(directory, name);
    mkdirSync(name.endsWith('/') ? path : dirname(path), { recursive: true });
    if (contents.startsWith('-> ')) symlinkSync(contents.slice(3), path);
    else if (!name.endsWith('/')) writeFileSync(path, contents);
  }
}

/** A root of a program or two, as one would make for a judge: no shell, no libraries. */
export function smallRoot(tree: Tree = {}): string {
  const root = temporary({ 'etc/passwd': 'root:x:0:0::/root:/bin/sh\n', ...tree });
  mkdirSync(join(root, 'bin'), { recursive: true });
  copyFileSync(fixture('probe'), join(root, 'bin/probe'));
  chmodSync(join(root, 'bin/probe'), 0o755);
  return root;
}

/** What another user may write to as well: upper layers, as whom the inside's root is outside. */
export const copyOf = (directory: string): string => {
  const copy = temporary();
  cpSync(directory, copy, { recursive: true });
  return copy;
};
