/** A tar into a directory as `import` does it, but in this thread, and back again. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { IsolationError } from 'cloister';
import { native } from '../../dist/native.js';
import { run } from '../../dist/tree/tree-tasks.js';

const isRoot = process.geteuid?.() === 0;

export interface KeptTar {
  /** How it was kept. */
  readonly kept: 'recipe' | 'whole';
  /** What comes back. undefined: an ordinary user, who is not root in a namespace here, may not read what the tree has. */
  readonly tar: Buffer | undefined;
}

/** `tar` is a file; `place` is a directory for some more files, `tree` an empty one. Throws where the tar is refused. */
export function keepTar(tar: string, tree: string, place: string, limits: { sizeLimit: number; entryLimit: number }): KeptTar {
  const [input, recipe, whole, output] = [
    openSync(tar, 'r'),
    openSync(join(place, 'recipe'), 'w+'),
    openSync(join(place, 'whole'), 'w'),
    openSync(join(place, 'back'), 'w'),
  ];
  const root = native().openFile(tree);
  try {
    const request = {
      kind: 'extract',
      ...limits,
      keepOwners: isRoot,
      prefix: isRoot ? 'trusted.overlay.' : 'user.overlay.',
      whiteouts: 'names',
    } as const;
    const outcome = run(request, { input, output: undefined, result: -1, lent: [root, recipe, whole] }) as { tar: { kept: KeptTar['kept'] } };
    if (outcome.tar.kept === 'whole') return { kept: 'whole', tar: readFileSync(join(place, 'whole')) };
    try {
      run({ kind: 'assemble' }, { input: undefined, output, result: -1, lent: [root, recipe] });
    } catch (error) {
      if (isRoot || (error as IsolationError).errnoName !== 'EACCES') throw error;
      return { kept: 'recipe', tar: undefined };
    }
    return { kept: 'recipe', tar: readFileSync(join(place, 'back')) };
  } finally {
    for (const fd of [input, recipe, whole, output]) closeSync(fd);
    native().close(root);
  }
}

export function emptyTree(tree: string): void {
  const root = native().openFile(tree);
  run({ kind: 'empty' }, { input: undefined, output: undefined, result: -1, lent: [root] });
  native().close(root);
}
