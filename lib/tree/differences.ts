import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { contentsDiffer, metadataDiffers, type Place, timesDiffer } from './compare.js';
import { checkDepth } from './depth.js';
import * as files from './files.js';
import { components, join } from './names.js';
import { fuseOpaque, type OverlayPrefix } from './overlay-attributes.js';
import { inOrder } from './pack.js';
import { isWhiteoutName, opaqueMarker, whiteoutName, whiteoutPrefix } from './whiteouts.js';

// What a writable layer of overlayfs changes, found by walking that layer alone. Documentation/filesystems/overlayfs.rst tells what its
// whiteouts, opaque directories, redirects and metacopies mean. What lies below is looked up name by name, in an overlay of the lower layers
// alone: so the kernel itself says what they hide from each other, and the cost is that of the changes.

/** One overlay of a root; descriptors of directories. */
export interface Part {
  /** Where it is mounted in the root: '' or 'data/disk'. */
  readonly target: Buffer;
  readonly upper: number;
  /** The root of all that lies below, as it looks without the writable layers. */
  readonly below: number;
  /** The overlay itself; undefined where it cannot have redirects and metacopies (`userxattr`). */
  readonly merged: number | undefined;
  /** aufs and fuse-overlayfs: what is gone is told by files named `.wh.` as well, and never are such names a program's. */
  readonly byName: boolean;
  /** What its upper directory was like when it was made, if that is known. */
  readonly root: { readonly mode: number; readonly owner: { readonly uid: number; readonly gid: number } | undefined } | undefined;
}

export interface Visitor {
  /** Told as it lies below. */
  deleted(below: Place): void;
  /** Before what is in it. 'times': only when something was last added or removed is different. */
  directory(kind: 'added' | 'modified' | 'times' | 'same', place: Place, below: Place | undefined): void;
  /** After what is in it. */
  leave?(): void;
  /** Anything else. `contents` opens a file's, where they are not in the layer. */
  file(kind: 'added' | 'modified' | 'same', place: Place, contents: (() => number) | undefined, below: Place | undefined): void;
}

interface Level {
  readonly path: Buffer;
  /** In the part. */
  readonly inside: Buffer;
  /** How many there are above it. */
  readonly levels: number;
  readonly fd: number;
  readonly below: number | undefined;
  /** It is the layer's directory, with overlayfs's notes in it; else one that is seen through the overlay. */
  readonly raw: boolean;
  /** The layer's directory, if there is one. */
  readonly written: number | undefined;
  /** Nothing from below is seen in it. */
  readonly complete: boolean;
}

export function walkPart(part: Part, prefix: OverlayPrefix, visitor: Visitor): void {
  new Walk(part, prefix, visitor).root();
}

const opaqueName = Buffer.from(opaqueMarker);

class Walk {
  readonly #part: Part;
  readonly #prefix: OverlayPrefix;
  readonly #visitor: Visitor;

  constructor(part: Part, prefix: OverlayPrefix, visitor: Visitor) {
    this.#part = part;
    this.#prefix = prefix;
    this.#visitor = visitor;
  }

  root(): void {
    const { upper, below, target } = this.#part;
    const fd = files.openDirectory(upper, files.self, target);
    const below0 = openBelow(below, components(target));
    try {
      const place: Place = { directory: fd, name: files.self, path: target, status: files.statusOfOpen(fd, target) };
      this.#visitor.directory(rootDiffers(place.status, this.#part.root) ? 'modified' : 'times', place, undefined);
      this.#walk({ path: target, inside: files.self, levels: components(target).length, fd, below: below0, raw: true, written: fd, complete: false });
      this.#visitor.leave?.();
    } finally {
      files.close(fd);
      if (below0 !== undefined) files.close(below0);
    }
  }

  #walk(level: Level): void {
    const whiteouts = level.raw && files.attribute(level.fd, `${this.#prefix}opaque`, level.path)?.toString() === 'x';
    const { names, gone } = this.#names(level);
    const found = names.flatMap((name) => {
      const path = join(level.path, name);
      const status = gone.has(name.toString('latin1')) ? undefined : this.#statusIn(level, name, path, whiteouts);
      const below = level.below === undefined ? undefined : files.statusOf(level.below, name, path);
      return status || below ? [{ name, path, status, below, told: status ? name : whiteoutName(name) }] : [];
    });
    for (const { name, path, status, below } of inOrder(found)) {
      if (!status) this.#visitor.deleted(this.#placeBelow(level, { name, path }, below as files.Status));
      else if (status.type === 'directory') this.#directory(level, { directory: level.fd, name, path, status }, below);
      else this.#file(level, { directory: level.fd, name, path, status: this.#ofOneFile(level, name, path, status) }, below);
    }
  }

  /** All that may be different here; `gone`: those that a whiteout's name tells of. */
  #names(level: Level): { names: Buffer[]; gone: ReadonlySet<string> } {
    const all = files.namesIn(level.fd, level.path);
    const marks = this.#part.byName && level.raw ? all.filter(isWhiteoutName) : [];
    const gone = marks.map((mark) => mark.subarray(whiteoutPrefix.length)).filter((name) => !isWhiteoutName(name));
    const names = marks.length === 0 ? all : [...all.filter((name) => !isWhiteoutName(name)), ...gone];
    if (level.complete && level.below !== undefined) names.push(...files.namesIn(level.below, level.path));
    const distinct = new Map(names.map((name) => [name.toString('latin1'), name]));
    return { names: [...distinct.values()], gone: new Set(gone.map((name) => name.toString('latin1'))) };
  }

  #isOpaque(fd: number, path: Buffer): boolean {
    if (files.attribute(fd, `${this.#prefix}opaque`, path)?.toString() === 'y') return true;
    if (!this.#part.byName) return false;
    return files.statusOf(fd, opaqueName, path) !== undefined || files.attribute(fd, fuseOpaque, path)?.toString() === 'y';
  }

  /** Undefined: there is nothing of this name to be seen. */
  #statusIn(level: Level, name: Buffer, path: Buffer, whiteouts: boolean): files.Status | undefined {
    const status = files.statusOf(level.fd, name, path);
    if (!status || !level.raw) return status;
    if (files.isWhiteout(status)) return undefined;
    // "overlay.whiteout": an empty file in a directory that is marked with opaque=x, since 6.7.
    if (whiteouts && status.type === 'file' && status.size === 0 && this.#attribute(level, name, path, 'whiteout') !== undefined) return undefined;
    return status;
  }

  #attribute(level: Level, name: Buffer, path: Buffer, which: string): Buffer | undefined {
    const object = files.openObject(level.fd, name, path);
    try {
      return files.attribute(object, `${this.#prefix}${which}`, path);
    } finally {
      files.close(object);
    }
  }

  #directory(level: Level, place: Place, below: files.Status | undefined): void {
    const { name, path } = place;
    const levels = level.levels + 1;
    checkDepth(levels, path, 'A program has made this in the root: let one remove it there, or reset() the root.');
    const lower = below?.type === 'directory' ? files.openDirectory(level.below as number, name, path) : undefined;
    const inside = join(level.inside, name);
    let fd = -1;
    let written: number | undefined;
    try {
      fd = files.openDirectory(level.fd, name, path);
      let raw = level.raw;
      if (!raw && level.written !== undefined && files.statusOf(level.written, name, path)?.type === 'directory') {
        written = files.openDirectory(level.written, name, path);
      }
      // What is below a renamed directory comes from where it was: only the overlay shows it.
      if (raw && files.attribute(fd, `${this.#prefix}redirect`, path) !== undefined) {
        written = fd;
        fd = -1;
        fd = this.#openMerged(inside, k.O_RDONLY | k.O_DIRECTORY, path);
        raw = false;
      }
      const opaque = raw && this.#isOpaque(fd, path);
      this.#visitor.directory(this.#kindOf(level, place, below), place, below && this.#placeBelow(level, place, below));
      this.#walk({ path, inside, levels, fd, below: lower, raw, written: raw ? fd : written, complete: !raw || opaque || level.complete });
      this.#visitor.leave?.();
    } finally {
      if (fd >= 0) files.close(fd);
      if (written !== undefined) files.close(written);
      if (lower !== undefined) files.close(lower);
    }
  }

  /** Names are one file's if they are in the layer: the overlay has other numbers for them, and not the same for all (ovl_map_dev_ino). */
  #ofOneFile(level: Level, name: Buffer, path: Buffer, status: files.Status): files.Status {
    if (level.raw || level.written === undefined || status.links === 1) return status;
    const written = files.statusOf(level.written, name, path);
    return written?.type === status.type ? { ...status, identity: written.identity } : status;
  }

  #kindOf(level: Level, place: Place, below: files.Status | undefined): 'added' | 'modified' | 'times' | 'same' {
    if (!below) return 'added';
    if (below.type !== 'directory' || metadataDiffers(place, this.#placeBelow(level, place, below))) return 'modified';
    return timesDiffer(place.status, below) ? 'times' : 'same';
  }

  #file(level: Level, place: Place, below: files.Status | undefined): void {
    const { name, path, status } = place;
    const isCopyOfMetadata =
      level.raw && status.type === 'file' && this.#part.merged !== undefined && this.#attribute(level, name, path, 'metacopy') !== undefined;
    const contents = isCopyOfMetadata ? () => this.#openMerged(join(level.inside, name), k.O_RDONLY | k.O_NONBLOCK, path) : undefined;
    const kind = !below ? 'added' : this.#fileDiffers(level, place, below, contents) ? 'modified' : 'same';
    this.#visitor.file(kind, place, contents, below && this.#placeBelow(level, place, below));
  }

  #fileDiffers(level: Level, place: Place, below: files.Status, contents: (() => number) | undefined): boolean {
    const { status } = place;
    const lower = this.#placeBelow(level, place, below);
    if (status.type !== below.type || status.size !== below.size || timesDiffer(status, below) || metadataDiffers(place, lower)) return true;
    // Opened for writing and not written to, say. Times can be set back, so they prove nothing.
    return contentsDiffer(place, lower, contents);
  }

  #placeBelow(level: Level, { name, path }: Pick<Place, 'name' | 'path'>, status: files.Status): Place {
    return { directory: level.below as number, name, path, status };
  }

  #openMerged(inside: Buffer, flags: number, path: Buffer): number {
    const names = components(inside);
    const last = names.pop() ?? files.self;
    let above = this.#part.merged as number;
    let opened = -1;
    try {
      for (const name of names) {
        const next = files.open(above, name, k.O_PATH | k.O_DIRECTORY, path);
        if (opened >= 0) files.close(opened);
        above = opened = next;
      }
      return files.open(above, last, flags, path);
    } finally {
      if (opened >= 0) files.close(opened);
    }
  }
}

/** A directory below, or undefined. */
function openBelow(root: number, names: readonly Buffer[]): number | undefined {
  let fd = files.openDirectory(root, files.self, files.self);
  let path = files.self;
  for (const name of names) {
    path = join(path, name);
    const status = files.statusOf(fd, name, path);
    // An ordinary user's overlay can look no more into a stranger's directory than we can: nothing in it is seen, or changed, inside.
    const next = status?.type === 'directory' ? native().files.open(fd, name, k.O_RDONLY | k.O_DIRECTORY, 0, 0) : -k.ENOTDIR;
    files.close(fd);
    if (next === -k.EACCES || next === -k.ENOTDIR) return undefined;
    fd = files.must(next, 'openat2', path);
  }
  return fd;
}

/** Of an upper directory that was there before nothing can be told. */
function rootDiffers({ mode, uid, gid }: files.Status, made: Part['root']): boolean {
  if (!made) return false;
  return mode !== made.mode || (made.owner !== undefined && (uid !== made.owner.uid || gid !== made.owner.gid));
}
