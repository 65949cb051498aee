import { ImageError } from '../errors.js';
import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { checkDepth } from './depth.js';
import * as files from './files.js';
import { layerError } from './layer-error.js';
import { components, join } from './names.js';
import { isOfTheHost, isReserved, type OverlayPrefix } from './overlay-attributes.js';
import { ownerAttribute, ownerRecord } from './owner-record.js';
import { removeEntry } from './remove.js';
import { ByteSource } from './streams.js';
import { TarKeeper } from './tar-keeper.js';
import { type ReadEntry, TarReader } from './tar-reader.js';
import type { Segment } from './tar-sparse.js';
import type { Whiteouts } from './tar-writer.js';
import { isWhiteoutName, opaqueMarker } from './whiteouts.js';
import { writeContents } from './write-contents.js';

// A layer's tar into a directory of the form that overlayfs takes as a lower layer: image-spec's layer.md, "Applying Changesets", but whiteouts stay.

export interface ExtractRequest {
  /** Of the tar, and of what its files have together, holes too. */
  readonly sizeLimit: number;
  readonly entryLimit: number;
  /** Files get the owners that the tar tells; else those are recorded. */
  readonly keepOwners: boolean;
  readonly prefix: OverlayPrefix;
  readonly whiteouts: Whiteouts;
}

/** Descriptors of two empty files that the tar is kept in: tar-keeper.ts. */
export interface TarFiles {
  readonly recipe: number;
  readonly whole: number;
}

/** Paths as latin1. */
export interface ExtractOutcome {
  readonly entries: number;
  readonly sizeBytes: number;
  readonly tar: {
    readonly size: number;
    /** undefined: it was not to be kept. */
    readonly kept: 'recipe' | 'whole' | undefined;
  };
  /** A marker in its root hides whatever lies below the layer: overlayfs does not look at that of a layer's own directory. */
  readonly isOpaque: boolean;
  readonly skipped: readonly { readonly path: string; readonly type: 'block-device' | 'char-device' }[];
  readonly unrecorded: readonly { readonly path: string; readonly what: string }[];
}

/** All of them are told, and so they are held in memory. */
const mostNotes = 100_000;

/** Bytes of the paths of directories: they are held in memory until the end. */
const mostRemembered = 2 ** 28;

/** Without these an ordinary user cannot fill a directory. */
const ownersOwn = 0o700;

/** PATH_MAX: nobody could use a longer one. */
const longestPath = 4095;

export function extractTree(pieces: () => Buffer | undefined, root: number, request: ExtractRequest, tar?: TarFiles): ExtractOutcome {
  const keeper = tar && new TarKeeper(root, tar.recipe, tar.whole);
  let size = 0;
  const measured = (): Buffer | undefined => {
    const piece = pieces();
    size += piece?.length ?? 0;
    if (size > request.sizeLimit) throw tooBig(request.sizeLimit);
    return piece;
  };
  const reader = new TarReader(new ByteSource(measured, keeper && ((bytes) => keeper.take(bytes))));
  const extraction = new Extraction(root, reader, request, keeper);
  try {
    for (let entry = reader.next(); entry; entry = reader.next()) extraction.take(entry);
    reader.drain();
    extraction.finish();
  } finally {
    extraction.close();
  }
  return { ...extraction.outcome, tar: { size, kept: keeper?.end() } };
}

function tooBig(limit: number): ImageError {
  return new ImageError('ERR_CLOISTER_LAYER', `the layer is bigger than sizeLimit: more than ${limit} bytes uncompressed`, { step: 'import the layer' });
}

interface Level {
  readonly name: Buffer;
  readonly path: Buffer;
  readonly fd: number;
}

interface Time {
  readonly seconds: number;
  readonly nanoseconds: number;
}

class Extraction {
  readonly #root: number;
  readonly #reader: TarReader;
  readonly #request: ExtractRequest;
  readonly #keeper: TarKeeper | undefined;
  /** The directory that the last entry was in, with those above it. */
  readonly #open: Level[] = [];
  /** Set at the end: each entry that is made changes its directory's time, and some modes keep their owner out. Paths as latin1. */
  readonly #directories = new Map<string, Time & { readonly mode: number }>();
  #counted = 0;
  #remembered = 0;
  readonly outcome = {
    entries: 0,
    sizeBytes: 0,
    isOpaque: false,
    skipped: [] as { path: string; type: 'block-device' | 'char-device' }[],
    unrecorded: [] as { path: string; what: string }[],
  };

  constructor(root: number, reader: TarReader, request: ExtractRequest, keeper: TarKeeper | undefined) {
    this.#root = root;
    this.#reader = reader;
    this.#request = request;
    this.#keeper = keeper;
    // What a tar without an entry for it leaves; directories that no entry tells of are from the beginning of time as well, not from now:
    // the same tar makes the same tree.
    files.must(native().files.setMode(root, 0o755), 'chmod', files.self);
    this.#directories.set('', { seconds: 0, nanoseconds: 0, mode: 0o755 });
  }

  take(entry: ReadEntry): void {
    this.outcome.entries++;
    this.#count();
    const names = namesOf(entry.path);
    for (const name of entry.attributes.keys()) {
      if (isReserved(name)) throw layerError(entry.path, `it has the extended attribute ${JSON.stringify(name)}, which is not a file's own`);
    }
    const name = names.pop();
    if (!name) {
      if (entry.type !== 'directory') throw layerError(entry.path, 'the root of a layer is a directory');
      this.#dress(this.#root, entry, files.self);
      return;
    }
    checkDepth(names.length + (entry.type === 'directory' ? 1 : 0), entry.path);
    const directory = this.#enter(names, entry.path);
    const path = this.#open.at(-1)?.path ?? files.self;
    if (this.#request.whiteouts === 'names' && isWhiteoutName(name)) this.#whiteout(directory, name, path, entry);
    else this.#make(directory, name, join(path, name), entry);
  }

  finish(): void {
    // From the leaves to the root: what is in a directory may be out of reach with its mode.
    for (const key of [...this.#directories.keys()].sort().reverse()) {
      const path = Buffer.from(key, 'latin1');
      const last = this.#directories.get(key);
      const fd = this.#reach(components(path));
      if (fd === undefined || !last) continue;
      if ((last.mode & ownersOwn) !== ownersOwn) files.must(native().files.setMode(fd, last.mode), 'chmod', path);
      this.#setTime(fd, last, path);
    }
  }

  close(): void {
    this.#leave(0);
  }

  /** The directory of these names, made where it is missing. */
  #enter(names: readonly Buffer[], told: Buffer): number {
    let same = 0;
    while (same < names.length && same < this.#open.length && (names[same] as Buffer).equals((this.#open[same] as Level).name)) same++;
    this.#leave(same);
    let path = this.#open.at(-1)?.path ?? files.self;
    for (const name of names.slice(same)) {
      const above = this.#open.at(-1)?.fd ?? this.#root;
      path = join(path, name);
      const status = files.statusOf(above, name, path);
      if (status && status.type !== 'directory' && !files.isWhiteout(status)) {
        throw layerError(told, `it leads through ${status.type === 'symlink' ? 'a symlink' : `a ${status.type}`} that is in the same tar`);
      }
      if (!status || files.isWhiteout(status)) {
        if (this.#request.whiteouts === 'names' && isWhiteoutName(name)) throw layerError(told, 'a whiteout is no directory');
        this.#makeDirectory(above, name, path, status !== undefined);
        this.#count();
        this.#remember(path, { seconds: 0, nanoseconds: 0, mode: 0o755 });
      }
      this.#open.push({ name: Buffer.from(name), path, fd: files.openDirectory(above, name, path) });
    }
    return this.#open.at(-1)?.fd ?? this.#root;
  }

  #leave(depth: number): void {
    for (const { fd } of this.#open.splice(depth)) files.close(fd);
  }

  /** The directory of these names, unless a later entry has put something else there. */
  #reach(names: readonly Buffer[]): number | undefined {
    let same = 0;
    while (same < names.length && same < this.#open.length && (names[same] as Buffer).equals((this.#open[same] as Level).name)) same++;
    this.#leave(same);
    let path = this.#open.at(-1)?.path ?? files.self;
    for (const name of names.slice(same)) {
      const above = this.#open.at(-1)?.fd ?? this.#root;
      path = join(path, name);
      if (files.statusOf(above, name, path)?.type !== 'directory') return undefined;
      this.#open.push({ name, path, fd: files.openDirectory(above, name, path) });
    }
    return this.#open.at(-1)?.fd ?? this.#root;
  }

  #makeDirectory(above: number, name: Buffer, path: Buffer, overWhiteout: boolean): void {
    if (overWhiteout) files.must(native().files.unlink(above, name, 0), 'unlinkat', path);
    files.must(native().files.makeDirectory(above, name, 0o755), 'mkdirat', path);
    // The umask is not the layer's.
    const fd = files.openDirectory(above, name, path);
    try {
      files.must(native().files.setMode(fd, 0o755), 'chmod', path);
      // Both a whiteout and a directory of the same name: nothing below is seen through it.
      if (overWhiteout) this.#makeOpaque(fd, path);
    } finally {
      files.close(fd);
    }
  }

  #makeOpaque(fd: number, path: Buffer): void {
    const name = Buffer.from(`${this.#request.prefix}opaque`);
    files.must(native().files.setAttribute(fd, name, Buffer.from('y')), 'setxattr', path);
  }

  #whiteout(directory: number, name: Buffer, path: Buffer, entry: ReadEntry): void {
    if (entry.type !== 'file' || entry.size !== 0) throw layerError(entry.path, 'a whiteout is an empty file');
    if (name.toString('latin1') === opaqueMarker) {
      this.#makeOpaque(directory, path);
      if (path.length === 0) this.outcome.isOpaque = true;
      return;
    }
    // Notes of aufs: .wh..wh.aufs, .wh..wh.plnk.
    if (isWhiteoutName(name.subarray(4))) return;
    const hidden = name.subarray(4);
    const text = hidden.toString('latin1');
    if (text === '' || text === '.' || text === '..') throw layerError(entry.path, 'it hides nothing that there can be');
    const there = files.statusOf(directory, hidden, entry.path);
    if (!there) {
      // Everybody may make this one device (may_mknod in fs/namei.c, since 5.8).
      files.must(native().files.makeNode(directory, hidden, k.S_IFCHR, 0, 0), 'mknodat', entry.path);
    } else if (there.type === 'directory') {
      const fd = files.openDirectory(directory, hidden, entry.path);
      this.#makeOpaque(fd, entry.path);
      files.close(fd);
    }
  }

  #make(directory: number, name: Buffer, path: Buffer, entry: ReadEntry): void {
    if (entry.type === 'file' && this.#file(directory, name, path, entry)) return;
    const there = files.statusOf(directory, name, path);
    const hidden = there !== undefined && files.isWhiteout(there);
    if (entry.type === 'directory' && there?.type === 'directory') {
      const fd = files.openDirectory(directory, name, path);
      this.#dress(fd, entry, path);
      files.close(fd);
      return;
    }
    if (entry.type === 'directory' && hidden) {
      this.#makeDirectory(directory, name, path, true);
    } else {
      // The last one of a name counts.
      if (there) this.#replace(directory, name, path, there);
      if (entry.type === 'file') {
        if (!this.#file(directory, name, path, entry)) throw files.refused(-k.EEXIST, 'openat2', path);
        return;
      }
      if (!this.#create(directory, name, path, entry) || entry.type === 'link') return;
    }
    const object = entry.type === 'directory' ? files.openDirectory(directory, name, path) : files.openObject(directory, name, path);
    try {
      this.#dress(object, entry, path);
    } finally {
      files.close(object);
    }
  }

  #replace(directory: number, name: Buffer, path: Buffer, there: files.Status): void {
    if (there.type === 'directory' || (there.type === 'file' && there.size > 0)) this.#keeper?.beforeLoss();
    // It is in the directory that was entered last, so it is not open itself.
    if (there.type === 'file' && there.links === 1) this.outcome.sizeBytes -= there.size;
    removeEntry(directory, name, path);
  }

  #create(directory: number, name: Buffer, path: Buffer, entry: ReadEntry): boolean {
    const calls = native().files;
    switch (entry.type) {
      case 'directory':
        this.#makeDirectory(directory, name, path, false);
        return true;
      case 'link':
        this.#link(directory, name, path, entry);
        return true;
      case 'symlink':
        if (entry.target.length === 0 || entry.target.length > longestPath) throw layerError(path, 'it is a symlink to nothing, or to too long a name');
        files.must(calls.makeLink(directory, name, entry.target), 'symlinkat', path);
        return true;
      case 'fifo':
        files.must(calls.makeNode(directory, name, k.S_IFIFO | 0o600, 0, 0), 'mknodat', path);
        return true;
      default: {
        if (this.#request.whiteouts === 'names' && entry.type === 'char-device' && entry.major === 0 && entry.minor === 0)
          throw layerError(path, "a device 0:0 is overlayfs's own whiteout");
        if (entry.major < 0 || entry.minor < 0 || entry.major > 0xfff || entry.minor > 0xfffff) throw layerError(path, 'it is a device that Linux cannot have');
        const mode = entry.type === 'char-device' ? k.S_IFCHR : k.S_IFBLK;
        const made = calls.makeNode(directory, name, mode | 0o600, entry.major, entry.minor);
        if (made === -k.EPERM) {
          this.outcome.skipped.push({ path: path.toString('latin1'), type: entry.type as 'block-device' | 'char-device' });
          return false;
        }
        files.must(made, 'mknodat', path);
        return true;
      }
    }
  }

  /** false: something has this name. */
  #file(directory: number, name: Buffer, path: Buffer, entry: ReadEntry): boolean {
    const fd = native().files.open(directory, name, k.O_WRONLY | k.O_CREAT | k.O_EXCL, 0o600, 0);
    if (fd === -k.EEXIST) return false;
    files.must(fd, 'openat2', path);
    try {
      this.outcome.sizeBytes += entry.size;
      if (this.outcome.sizeBytes > this.#request.sizeLimit) throw layerError(path, `with it the layer has more than ${this.#request.sizeLimit} bytes`);
      const begins = (part: Segment): void => this.#keeper?.refer({ path, size: entry.size, ...part });
      writeContents(fd, entry, (most) => this.#reader.content(most), path, begins);
      // By the descriptor that it was written with: it is most of what a layer has, and each call counts.
      this.#dress(fd, entry, path);
    } finally {
      files.close(fd);
    }
    return true;
  }

  /** The names of a link are looked up like any others: below the root, through no symlink. */
  #link(directory: number, name: Buffer, path: Buffer, entry: ReadEntry): void {
    const names = namesOf(entry.target, path);
    const last = names.pop();
    let above = this.#root;
    let opened = -1;
    try {
      for (const step of names) {
        const status = files.statusOf(above, step, path);
        if (status?.type !== 'directory') throw layerError(path, 'it is a hard link to what is not in this layer');
        const next = files.openDirectory(above, step, path);
        if (opened >= 0) files.close(opened);
        above = opened = next;
      }
      const status = last && files.statusOf(above, last, path);
      if (!last || !status || files.isWhiteout(status)) throw layerError(path, 'it is a hard link to what is not in this layer');
      if (status.type === 'directory') throw layerError(path, 'it is a hard link to a directory');
      files.must(native().files.link(above, last, directory, name), 'linkat', path);
    } finally {
      if (opened >= 0) files.close(opened);
    }
  }

  /** Owner first: chown(2) takes set-id bits and file capabilities away. */
  #dress(object: number, entry: ReadEntry, path: Buffer): void {
    const calls = native().files;
    const note = (what: string): void => this.#note(path, what);
    if (this.#request.keepOwners) files.must(calls.setOwner(object, files.self, entry.uid, entry.gid), 'fchownat', path);
    else if (entry.type === 'file' || entry.type === 'directory') {
      if (entry.uid !== 0 || entry.gid !== 0) {
        const recorded = calls.setAttribute(object, Buffer.from(ownerAttribute), ownerRecord(entry));
        if (recorded < 0) note(`owner ${entry.uid}:${entry.gid}`);
      }
    } else if (entry.uid !== 0 || entry.gid !== 0) note(`owner ${entry.uid}:${entry.gid}`);
    for (const [name, value] of entry.attributes) {
      if (isOfTheHost(name)) {
        note(`extended attribute ${name}`);
        continue;
      }
      const result = calls.setAttribute(object, Buffer.from(name, 'latin1'), value);
      if (result === -k.ENOSPC || result === -k.EDQUOT) throw files.refused(result, 'setxattr', path);
      if (result < 0) note(`extended attribute ${name}`);
    }
    if (entry.type === 'directory') {
      const { seconds, nanoseconds, mode } = entry;
      files.must(calls.setMode(object, mode | ownersOwn), 'chmod', path);
      this.#remember(path, { seconds, nanoseconds, mode });
      return;
    }
    if (entry.type !== 'symlink') files.must(calls.setMode(object, entry.mode), 'chmod', path);
    this.#setTime(object, entry, path);
  }

  /** Entries, and directories that no entry tells of: one name can make two thousand. */
  #count(): void {
    if (++this.#counted > this.#request.entryLimit) throw layerError(undefined, `it has more than ${this.#request.entryLimit} entries`);
  }

  #remember(path: Buffer, what: Time & { readonly mode: number }): void {
    const key = path.toString('latin1');
    if (!this.#directories.has(key)) this.#remembered += path.length;
    if (this.#remembered > mostRemembered) throw layerError(path, `the names of its directories have more than ${mostRemembered} bytes together`);
    this.#directories.set(key, what);
  }

  #note(path: Buffer, what: string): void {
    if (this.outcome.unrecorded.length === mostNotes) throw layerError(path, `with it ${mostNotes} owners and attributes could not be kept here`);
    this.outcome.unrecorded.push({ path: path.toString('latin1'), what });
  }

  #setTime(object: number, { seconds, nanoseconds }: Time, path: Buffer): void {
    files.must(native().files.setTime(object, files.self, seconds, nanoseconds), 'utimensat', path);
  }
}

/** Of a path that a stranger has written. '.' and empty ones are nothing. */
function namesOf(path: Buffer, of: Buffer = path): Buffer[] {
  if (path.length === 0) throw layerError(of, path === of ? 'it has no name' : 'it is a hard link to nothing');
  if (path[0] === 0x2f) throw layerError(of, path === of ? 'its name is absolute' : 'it is a hard link to an absolute name');
  if (path.length > longestPath) throw layerError(of, `its name has ${path.length} bytes`);
  const names = components(path).filter((name) => name.length > 0 && !(name.length === 1 && name[0] === 0x2e));
  for (const name of names) {
    if (name.toString('latin1') === '..') throw layerError(of, path === of ? "it has '..' in its name" : "it is a hard link to a name with '..'");
    if (name.length > 255) throw layerError(of, `a part of its name has ${name.length} bytes`);
  }
  return names;
}
