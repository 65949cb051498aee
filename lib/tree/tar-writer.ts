import { dataRanges } from './data-ranges.js';
import * as files from './files.js';
import { attributesInside, type IdView } from './ids-inside.js';
import { layerError } from './layer-error.js';
import { join } from './names.js';
import { ownAttributes } from './overlay-attributes.js';
import { ownerOf } from './owner-record.js';
import type { ByteSink } from './streams.js';
import { encodeHeader, encodeSparseHeader, encodeSparseMap } from './tar-encode.js';
import { blockSize, padding, type TarEntry } from './tar-entry.js';
import { isWhiteoutName, opaqueMarker, whiteoutName } from './whiteouts.js';

const nothing = { uid: 0, gid: 0, size: 0, mode: 0, seconds: 0, nanoseconds: 0, target: files.self, major: 0, minor: 0, attributes: new Map<string, Buffer>() };

/**
 * How a whiteout is told: as OCI has it, by a name, so that other names that begin alike cannot be told; or between two of us, by
 * overlayfs's own device.
 */
export type Whiteouts = 'names' | 'devices';

/** Writes what it is shown of a tree. Contents are read when they are written: the memory that it takes does not grow. */
export class TarWriter {
  readonly #sink: ByteSink;
  readonly #ids: IdView;
  readonly #whiteouts: Whiteouts;
  /** Files of several names, by inode: the first name has the contents. */
  readonly #names = new Map<string, Buffer>();

  constructor(sink: ByteSink, ids: IdView, whiteouts: Whiteouts = 'names') {
    this.#sink = sink;
    this.#ids = ids;
    this.#whiteouts = whiteouts;
  }

  /** Of an entry of this name. image-spec's layer.md, "Whiteouts". */
  whiteout(path: Buffer): void {
    if (this.#whiteouts === 'devices') {
      this.#sink.write(encodeHeader({ ...nothing, type: 'char-device', path }));
      return;
    }
    const slash = path.lastIndexOf(0x2f) + 1;
    this.#sink.write(encodeHeader({ ...nothing, type: 'file', path: Buffer.concat([path.subarray(0, slash), whiteoutName(path.subarray(slash))]) }));
  }

  /** Of all that lies below a directory. */
  opaque(path: Buffer): void {
    this.#sink.write(encodeHeader({ ...nothing, type: 'file', path: join(path, Buffer.from(opaqueMarker)) }));
  }

  /** An entry, under the name `path`; `contents` opens what is to be read, where that is not the entry itself. */
  add(directory: number, name: Buffer, path: Buffer, status: files.Status, contents?: () => number): void {
    // A socket is nothing without its process, and tars have no kind for it.
    if (status.type === 'socket') return;
    if (this.#whiteouts === 'names' && isWhiteoutName(name))
      throw layerError(path, 'its name would be taken for a whiteout', 'An OCI layer cannot have such a name.');
    if (path.length > 4095) throw layerError(path, 'its path is longer than any program could use');
    // Such a size is rounded already; files can have 8 EiB.
    if (status.type === 'file' && status.size > Number.MAX_SAFE_INTEGER) throw layerError(path, 'it has more than 8 PiB');
    const first = status.type !== 'directory' && status.links > 1 ? this.#names.get(status.identity) : undefined;
    const object = files.openObject(directory, name, path);
    try {
      const all = files.attributesOf(object, path);
      const owner = ownerOf({ uid: this.#ids.uid(status.uid), gid: this.#ids.gid(status.gid) }, all);
      const entry: TarEntry = {
        ...owner,
        mode: status.mode,
        seconds: status.seconds,
        nanoseconds: status.nanoseconds,
        type: status.type,
        path,
        size: status.type === 'file' ? status.size : 0,
        target: status.type === 'symlink' ? files.linkTarget(directory, name, path) : files.self,
        major: status.major,
        minor: status.minor,
        attributes: attributesInside(ownAttributes(all), this.#ids),
      };
      if (first) {
        // All of it once more, but the contents: some tools set owner and attributes by each name.
        this.#sink.write(encodeHeader({ ...entry, type: 'link', size: 0, target: first, major: 0, minor: 0 }));
        return;
      }
      if (status.type !== 'directory' && status.links > 1) this.#names.set(status.identity, path);
      if (status.type === 'file') this.#file(entry, contents ?? (() => files.openFile(directory, name, path)));
      else this.#sink.write(encodeHeader(entry));
    } finally {
      files.close(object);
    }
  }

  end(): void {
    this.#sink.zeros(2 * blockSize);
    this.#sink.flush();
  }

  #file(entry: TarEntry, contents: () => number): void {
    const file = contents();
    try {
      const ranges = dataRanges(file, entry.size, entry.path);
      const map = ranges && encodeSparseMap(ranges, entry.size);
      const size = (map?.length ?? 0) + (ranges ?? [{ length: entry.size }]).reduce((sum, { length }) => sum + length, 0);
      this.#sink.write(map ? encodeSparseHeader(entry, size) : encodeHeader(entry));
      if (map) this.#sink.write(map);
      for (const { offset, length } of ranges ?? [{ offset: 0, length: entry.size }]) {
        const copied = this.#sink.copy(file, offset, length, entry.path);
        // Somebody has made it shorter since: what was told has to be there.
        this.#sink.zeros(length - copied);
      }
      this.#sink.zeros(padding(size));
    } finally {
      files.close(file);
    }
  }
}
