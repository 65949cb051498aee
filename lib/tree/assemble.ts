import { ImageError } from '../errors.js';
import * as files from './files.js';
import { components, printable } from './names.js';
import { type FilePart, RecipeReader } from './recipe.js';
import { ByteSink } from './streams.js';

/** The tar that a tree was made of, by its recipe. Whether it is really that one, its digest tells. */
export function assembleTar(root: number, recipe: number, sinkFd: number): void {
  const sink = new ByteSink(sinkFd);
  assembleInto(sink, root, recipe);
  sink.flush();
}

export function assembleInto(sink: ByteSink, root: number, recipe: number): void {
  const reader = new RecipeReader(recipe);
  const tree = new OpenTree(root);
  try {
    for (let record = reader.next(); record; record = reader.next()) {
      if ('path' in record) copyPart(sink, tree, record);
      else {
        for (let left = record.bytes; left > 0; ) {
          const bytes = reader.some(left);
          sink.write(bytes);
          left -= bytes.length;
        }
      }
    }
  } finally {
    tree.close();
  }
}

function copyPart(sink: ByteSink, tree: OpenTree, { path, size, offset, length }: FilePart): void {
  const names = components(path);
  const name = names.pop();
  if (!name) throw unlike(path, 'it is no name of a file');
  // Whatever is there by now: a fifo is not waited for, and nothing is followed.
  const fd = files.openFile(tree.reach(names), name, path);
  try {
    const found = files.statusOfOpen(fd, path).size;
    if (found !== size) throw unlike(path, `it has ${found} bytes, and had ${size}`);
    if (sink.copy(fd, offset, length, path) < length) throw unlike(path, 'it is shorter than it was');
  } finally {
    files.close(fd);
  }
}

function unlike(path: Uint8Array, what: string): ImageError {
  return new ImageError('ERR_CLOISTER_STORE', `${printable(path)}: ${what}`);
}

/** The directory that was asked for last is open, with those above it: the next is mostly the same. */
class OpenTree {
  readonly #root: number;
  readonly #open: { readonly name: Buffer; readonly fd: number }[] = [];

  constructor(root: number) {
    this.#root = root;
  }

  reach(names: readonly Buffer[]): number {
    let same = 0;
    while (same < names.length && same < this.#open.length && (names[same] as Buffer).equals((this.#open[same] as { name: Buffer }).name)) same++;
    this.#leave(same);
    for (const name of names.slice(same)) this.#open.push({ name, fd: files.openDirectory(this.#top, name, name) });
    return this.#top;
  }

  close(): void {
    this.#leave(0);
  }

  get #top(): number {
    return this.#open.at(-1)?.fd ?? this.#root;
  }

  #leave(depth: number): void {
    for (const { fd } of this.#open.splice(depth)) files.close(fd);
  }
}
