import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdir, open, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ImageError } from '../errors.js';
import { type Digest, digestOf, hexOf, isDigest } from './digest.js';

// What is in the directory of a LayerStore:
//
//   version              'cloister layer store 1': who finds another leaves the directory alone
//   lock                 no content; ranges of bytes of it are locked, see store-lock.ts
//   blobs/sha256/HEX     as images name them: manifests, configurations, layers as they came, compressed
//   tars/HEX             of a DiffID: which blob holds that tar
//   layers/HEX/          of a DiffID: `tree`, the files in the form of an overlayfs layer, `layer.json`, and, if it came uncompressed, `recipe`:
//                        with the tree it is that tar, see layer-tar.ts
//   chains/HEX           of a ChainID: which layer, and on which parent: the nodes of the tree
//   images/HEX           of a manifest's digest: its layers
//   names/HEX            of the name's sha256: the name, and which image has it
//   recent/BOOT/         `tars`, `chains`, `images` and `names` as above, of what is not on the disk yet: see recent.ts
//   partial/HEX          a blob that was being pulled, as far as it got
//   temp/PID-START-X/    of an operation that is going on, or was when its process died
//
// Everything but a record in `tars` and `names` is written once. It is made complete in temp, and renamed to its place; first
// what is referred to, then what refers to it; and taken away in the opposite order. So whoever is killed leaves at most what
// nothing refers to, which the next gc() takes away. A layer is there if `tars` has a record of it.
//
// The blob of a compressed layer is kept beside its tree, as containerd does: no compressor makes another's bytes, and the digests of an image
// that is pushed or exported would change. tar-split (containers/storage, Docker) keeps headers only and saves that space, but gives
// uncompressed bytes back: an image gets another manifest with each move. What came uncompressed is kept in that way here, too.

const version = 'cloister layer store 1\n';
const kinds = ['blobs', 'tars', 'layers', 'chains', 'images', 'names', 'partial', 'temp'] as const;

/** In the order in which they refer to each other. */
export const recordKinds = ['tars', 'chains', 'images', 'names'] as const;
export type RecordKind = (typeof recordKinds)[number];
const isRecordKind = (kind: string): kind is RecordKind => (recordKinds as readonly string[]).includes(kind);

/** What holds the tar of a layer. */
export interface TarRecord {
  readonly digest: Digest;
  readonly size: number;
  readonly mediaType: string;
}
export interface LayerRecord {
  /** Of the uncompressed tar. */
  readonly sizeBytes: number;
  /** It hides whatever is below it. */
  readonly isOpaque: boolean;
  /** 'recorded': an ordinary user's layer; all files are that user's, and what the tar says is in an xattr. */
  readonly owners: 'kept' | 'recorded';
  /** Device nodes that an ordinary user could not make. */
  readonly skipped: readonly string[];
  /** Files whose owner or xattr could not be kept. */
  readonly unrecorded: readonly string[];
}
export interface ChainRecord {
  readonly layer: Digest;
  readonly parent?: Digest;
}
export interface ImageRecord {
  readonly mediaType: string;
  readonly layers: readonly Digest[];
}
export interface NameRecord {
  readonly name: string;
  readonly image: Digest;
}

export class StoreDirectory {
  readonly path: string;
  readonly lock: string;

  readonly #boot: string;

  private constructor(path: string) {
    this.path = path;
    // proc_sys_kernel(5)
    this.#boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    this.lock = join(path, 'lock');
  }

  /** Makes it if it is missing or empty. */
  static async open(path: string): Promise<StoreDirectory> {
    const store = new StoreDirectory(path);
    // Layers have setuid programs of strangers: nobody else may get at them.
    await makeDirectory(path);
    // Whoever else can put names into it says what is in the store, and what is taken away when it is opened.
    const { uid, mode } = statSync(path);
    if (uid !== process.geteuid?.()) throw notOwn(path, `it is the user ${uid}'s`);
    if (mode & 0o022) throw notOwn(path, `others may write to it: its mode is ${(mode & 0o7777).toString(8)}`);
    const file = join(path, 'version');
    if (!existsSync(file)) {
      const others = readdirSync(path).filter((name) => !name.startsWith('.version.') && name !== 'version');
      if (!others.every((name) => isHalfMade(path, name)) && !existsSync(file))
        throw notAStore(path, `it has no file 'version', but ${others.slice(0, 3).join(', ')}`);
      for (const kind of [...kinds, 'blobs/sha256']) await makeDirectory(join(path, kind));
      await writeFile(store.lock, '', { flag: 'a', mode: 0o600 });
      const temporary = join(path, `.version.${randomBytes(6).toString('hex')}`);
      await writeSynced(temporary, version);
      await putInPlace(temporary, file);
    }
    const found = readFileSync(file, 'utf8');
    if (found !== version) throw notAStore(path, `its version is ${JSON.stringify(found.slice(0, 40))}, not ${JSON.stringify(version)}`);
    return store;
  }

  blob(digest: Digest): string {
    return join(this.path, 'blobs/sha256', hexOf(digest));
  }
  layer(digest: Digest): string {
    return join(this.path, 'layers', hexOf(digest));
  }
  tree(digest: Digest): string {
    return join(this.layer(digest), 'tree');
  }
  /** Of a layer that came uncompressed. */
  recipe(digest: Digest): string {
    return join(this.layer(digest), 'recipe');
  }
  chain(chainId: Digest): string {
    return join(this.path, 'chains', hexOf(chainId));
  }
  tar(digest: Digest): string {
    return join(this.path, 'tars', hexOf(digest));
  }
  image(digest: Digest): string {
    return join(this.path, 'images', hexOf(digest));
  }
  name(name: string): string {
    return join(this.path, 'names', hexOf(digestOf(name)));
  }
  partial(digest: Digest): string {
    return join(this.path, 'partial', hexOf(digest));
  }
  get temp(): string {
    return join(this.path, 'temp');
  }

  /** Records of what is not on the disk yet: recent.ts. */
  get recent(): string {
    return join(this.path, 'recent', this.#boot);
  }

  layerRecord(digest: Digest): LayerRecord | undefined {
    return readRecord(join(this.layer(digest), 'layer.json'));
  }
  chainRecord(chainId: Digest): ChainRecord | undefined {
    return this.#record('chains', chainId);
  }
  tarRecord(digest: Digest): TarRecord | undefined {
    return this.#record('tars', digest);
  }
  imageRecord(digest: Digest): ImageRecord | undefined {
    return this.#record('images', digest);
  }
  nameRecord(name: string): NameRecord | undefined {
    return this.#record('names', digestOf(name));
  }

  has(kind: RecordKind, digest: Digest): boolean {
    return this.#placesOf(kind).some((place) => existsSync(join(place, hexOf(digest))));
  }

  /** Seen from now on, whole or not at all; on the disk some time later. `temporary` is on the same file system. */
  async put(kind: RecordKind, digest: Digest, record: object, temporary: string): Promise<void> {
    await writeFile(temporary, JSON.stringify(record), { flag: 'wx', mode: 0o600 });
    await rename(temporary, join(this.recent, kind, hexOf(digest)));
  }

  /** The digests in one of the directories that are named by them. */
  digests(kind: 'blobs/sha256' | 'layers' | 'partial' | Exclude<RecordKind, 'names'>): Digest[] {
    const names = isRecordKind(kind) ? this.#listed(kind) : readdirSync(join(this.path, kind));
    return [...new Set(names)]
      .map((hex) => `sha256:${hex}`)
      .filter(isDigest)
      .sort();
  }

  names(): NameRecord[] {
    return [...new Set(this.#listed('names'))]
      .map((hex) => this.#record<NameRecord>('names', `sha256:${hex}`))
      .filter((record) => record !== undefined)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Throws if it is gone: what is not found is not there then, for another reason. */
  check(): void {
    try {
      statSync(this.lock);
    } catch (error) {
      throw goneOr(error as NodeJS.ErrnoException, this.path);
    }
  }

  /** In the order of #placesOf. Before `beginBoot` nothing is recent. */
  #listed(kind: RecordKind): string[] {
    const [recent, settled] = this.#placesOf(kind) as [string, string];
    try {
      return [...(existsSync(recent) ? readdirSync(recent) : []), ...readdirSync(settled)];
    } catch (error) {
      throw goneOr(error as NodeJS.ErrnoException, this.path);
    }
  }

  #record<T>(kind: RecordKind, digest: Digest): T | undefined {
    for (const place of this.#placesOf(kind)) {
      const record = readRecord<T>(join(place, hexOf(digest)));
      if (record) return record;
    }
    return undefined;
  }

  /** A name's newer record comes first. They only move from there to here, so whoever looks in this order misses none. */
  #placesOf(kind: RecordKind): string[] {
    return [join(this.recent, kind), join(this.path, kind)];
  }
}

/**
 * With those above it that are missing; others may be making them as well. Node's own, `recursive`, does not end where a directory that is there
 * takes no new ones and says ENOENT, as /proc does.
 */
async function makeDirectory(path: string): Promise<void> {
  const make = async (): Promise<void> => {
    try {
      await mkdir(path, { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  };
  try {
    await make();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) throw error;
    await makeDirectory(dirname(path));
    await make();
  }
}

/** What there is of a store while somebody makes it, or who did was killed: nothing is put into one that has no version. */
function isHalfMade(path: string, name: string): boolean {
  if (name === 'lock') return true;
  if (!(kinds as readonly string[]).includes(name)) return false;
  try {
    return readdirSync(join(path, name)).every((inner) => name === 'blobs' && inner === 'sha256' && readdirSync(join(path, name, inner)).length === 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return false;
    throw error;
  }
}

function readRecord<T>(path: string): T | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new ImageError('ERR_CLOISTER_STORE', `a record of the store is unreadable: ${path}: ${(cause as Error).message}`, {
      step: 'read the store',
      path,
      cause,
      hint: 'verify() lists what is broken; what it names can be removed and imported again.',
    });
  }
}

/** A rename that a crash does not undo. */
export async function putInPlace(from: string, to: string): Promise<void> {
  await rename(from, to);
  await syncDirectory(join(to, '..'));
}

export async function writeSynced(path: string, content: string | Uint8Array): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}

export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function goneOr(cause: NodeJS.ErrnoException, path: string): unknown {
  if (cause.errno === undefined) return cause;
  const { errno, syscall, path: file = path } = cause;
  return ImageError.ofErrno('ERR_CLOISTER_STORE', errno, {
    step: 'read the store',
    syscall,
    path: file,
    cause,
    hint: 'It has been taken away or damaged since it was opened.',
  });
}

function notOwn(path: string, why: string): ImageError {
  return new ImageError('ERR_CLOISTER_STORE', `${path} cannot be a layer store of this user: ${why}`, {
    step: 'open the store',
    path,
    hint: 'Open a directory of this user that nobody else may write to (chmod 700).',
  });
}

function notAStore(path: string, why: string): ImageError {
  return new ImageError('ERR_CLOISTER_STORE', `${path} is no layer store of this version: ${why}`, {
    step: 'open the store',
    path,
    hint: 'Open an empty directory, or one that does not exist yet.',
  });
}
