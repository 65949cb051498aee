import type { IdMap } from '../namespace/types.js';
import type { Place } from './compare.js';
import { type Part, type Visitor, walkPart } from './differences.js';
import * as files from './files.js';
import { type IdView, idsInside, sameIds } from './ids-inside.js';
import { components, join } from './names.js';
import type { OverlayPrefix } from './overlay-attributes.js';
import { type PartOrder, partsOf } from './part-order.js';
import { ByteSink } from './streams.js';
import { TarWriter, type Whiteouts } from './tar-writer.js';
import type { TaskDescriptors } from './task.js';

// The task behind OverlayRootfs.diff(): an OCI layer of exactly the difference. image-spec's layer.md: "Implementations SHOULD generate
// layers using explicit whiteout files", so what an opaque directory hides is named.

export interface DiffRequest {
  readonly prefix: OverlayPrefix;
  readonly parts: readonly PartOrder[];
  /** Whose ids the files have; undefined: as they are. */
  readonly map: IdMap | undefined;
  readonly whiteouts: Whiteouts;
}

export function run(request: DiffRequest, { output, lent }: TaskDescriptors): void {
  const sink = new ByteSink(output as number);
  const ids: IdView = request.map ? idsInside(request.map) : sameIds;
  const diff = new Diff(new TarWriter(sink, ids, request.whiteouts));
  for (const part of partsOf(request.parts, lent)) {
    diff.begin(part);
    walkPart(part, request.prefix, diff);
    diff.end();
  }
  diff.finish();
}

class Diff implements Visitor {
  readonly #writer: TarWriter;
  /** Directories that have not been told yet: they are if something in them is. A layer must say what its directories are like. */
  #pending: Place[] = [];
  /** How many of those that we are in have been told. */
  #told = 0;
  /** Those above several parts are told once. */
  readonly #written = new Set<string>();
  #opened: number[] = [];

  constructor(writer: TarWriter) {
    this.#writer = writer;
  }

  /** The directories above a part are another part's; what they are like is the same from below. */
  begin({ below, target }: Part): void {
    let fd = below;
    let path = files.self;
    for (const name of components(target).slice(0, -1)) {
      path = join(path, name);
      const status = files.statusOf(fd, name, path);
      if (status?.type !== 'directory') break;
      this.#pending.push({ directory: fd, name, path, status });
      fd = files.openDirectory(fd, name, path);
      this.#opened.push(fd);
    }
  }

  end(): void {
    for (const fd of this.#opened) files.close(fd);
    this.#opened = [];
    this.#pending = [];
    this.#told = 0;
  }

  finish(): void {
    this.#writer.end();
  }

  deleted({ path }: Place): void {
    this.#flush();
    this.#writer.whiteout(path);
  }

  directory(kind: 'added' | 'modified' | 'times' | 'same', place: Place): void {
    this.#pending.push(place);
    // The root of a part has a time of its own from the start; that of the whole is always told, as the first entry.
    const isPartRoot = place.name.length === 0;
    if (isPartRoot ? place.path.length === 0 || kind === 'modified' : kind !== 'same') this.#flush();
  }

  leave(): void {
    this.#pending.pop();
    this.#told = Math.min(this.#told, this.#pending.length);
  }

  file(kind: 'added' | 'modified' | 'same', place: Place, contents: (() => number) | undefined): void {
    // One that only got another name here is part of the difference: else the two would not be the same file any more.
    if (kind === 'same' && place.status.links === 1) return;
    if (place.status.type === 'socket') return;
    this.#flush();
    this.#writer.add(place.directory, place.name, place.path, place.status, contents);
  }

  #flush(): void {
    for (const { directory, name, path, status } of this.#pending.slice(this.#told)) {
      const key = path.toString('latin1');
      if (this.#written.has(key)) continue;
      this.#written.add(key);
      this.#writer.add(directory, name, path.length === 0 ? Buffer.from('.') : path, status);
    }
    this.#told = this.#pending.length;
  }
}
