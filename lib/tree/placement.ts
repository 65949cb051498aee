import { randomBytes } from 'node:crypto';
import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { attributesAt, type Place } from './compare.js';
import { copyContents } from './copy-contents.js';
import * as files from './files.js';
import { attributesInside, type IdView } from './ids-inside.js';
import { components } from './names.js';
import { removeEntry } from './remove.js';

/** Puts entries into a directory of the host, each by one rename. Methods say why they have not. */
export class Placement {
  readonly #target: number;
  readonly #ids: IdView;
  readonly #keepOwners: boolean;
  readonly #prefix = `.cloister-${randomBytes(8).toString('hex')}-`;
  #count = 0;
  /** Of files with several names: where the first one of them was put. */
  readonly #placed = new Map<string, Buffer>();

  constructor(target: number, ids: IdView, keepOwners: boolean) {
    this.#target = target;
    this.#ids = ids;
    this.#keepOwners = keepOwners;
  }

  /** What would give its maker more on the host than a file: nothing of that is taken, whoever accepted it by its name. */
  refuses(place: Place): string | undefined {
    const { type, mode } = place.status;
    if (type === 'char-device' || type === 'block-device') return 'it is a device node';
    if (type === 'socket') return 'it is a socket, which is nothing without its process';
    if (type === 'file' && (mode & 0o4000 || (mode & 0o2010) === 0o2010)) return 'it is a set-id program';
    if (type === 'file' && attributesAt(place).has('security.capability')) return 'it is a program with file capabilities';
    return undefined;
  }

  file(directory: number, place: Place, contents: (() => number) | undefined, there: files.Status | undefined): string | undefined {
    const { name, path, status } = place;
    const temporary = this.#temporary();
    const calls = native().files;
    try {
      const first = status.links > 1 ? this.#placed.get(status.identity) : undefined;
      if (!first || !this.#link(first, directory, temporary)) {
        if (status.type === 'file') this.#copy(directory, temporary, place, contents);
        else {
          if (status.type === 'symlink') files.must(calls.makeLink(directory, temporary, files.linkTarget(place.directory, name, path)), 'symlinkat', path);
          else files.must(calls.makeNode(directory, temporary, k.S_IFIFO | 0o600, 0, 0), 'mknodat', path);
          this.dress(directory, temporary, place);
        }
      }
      const reason = this.#put(directory, temporary, name, path, there);
      if (!reason && status.links > 1) this.#placed.set(status.identity, path);
      return reason;
    } finally {
      removeEntry(directory, temporary, path);
    }
  }

  directory(directory: number, place: Place, there: files.Status | undefined): string | undefined {
    const temporary = this.#temporary();
    try {
      files.must(native().files.makeDirectory(directory, temporary, 0o700), 'mkdirat', place.path);
      this.dress(directory, temporary, place);
      return this.#put(directory, temporary, place.name, place.path, there);
    } finally {
      removeEntry(directory, temporary, place.path);
    }
  }

  /** Gives an entry the owner, permissions, attributes and time of another one. */
  dress(directory: number, name: Buffer, place: Place): undefined {
    const object = files.openObject(directory, name, place.path);
    try {
      this.#dressObject(object, place);
    } finally {
      files.close(object);
    }
  }

  #dressObject(object: number, place: Place): void {
    const { path, status } = place;
    const calls = native().files;
    // Whoever may write to this directory may have put a program there by now, and a directory's set-id bits are harmless only to a directory.
    if (files.statusOfOpen(object, path).type !== status.type) throw files.refused(-k.ESTALE, 'openat2', path);
    if (this.#keepOwners) files.must(calls.setOwner(object, files.self, this.#ids.uid(status.uid), this.#ids.gid(status.gid)), 'fchownat', path);
    const attributes = attributesInside(attributesAt(place), this.#ids);
    // Security modules and trusted.* are this host's own affairs.
    const given = [...attributes].filter(([key]) => key.startsWith('user.') || key.startsWith('system.posix_acl_'));
    if (status.type === 'directory') {
      for (const key of files.attributesOf(object, path).keys()) {
        if (key.startsWith('user.') && !attributes.has(key)) files.must(calls.removeAttribute(object, Buffer.from(key, 'latin1')), 'removexattr', path);
      }
    }
    for (const [key, value] of given) files.must(calls.setAttribute(object, Buffer.from(key, 'latin1'), value), 'setxattr', path);
    if (status.type !== 'symlink') files.must(calls.setMode(object, status.mode), 'chmod', path);
    if (status.type !== 'directory') files.must(calls.setTime(object, files.self, status.seconds, status.nanoseconds), 'utimensat', path);
  }

  remove(directory: number, name: Buffer, path: Buffer, there: files.Status): string | undefined {
    const temporary = this.#temporary();
    files.must(native().files.rename(directory, name, directory, temporary, k.RENAME_NOREPLACE), 'renameat2', path);
    if (!this.#isStill(directory, temporary, path, there)) {
      files.must(native().files.rename(directory, temporary, directory, name, k.RENAME_NOREPLACE), 'renameat2', path);
      return 'it is being changed there at this moment';
    }
    removeEntry(directory, temporary, path);
    return undefined;
  }

  #put(directory: number, temporary: Buffer, name: Buffer, path: Buffer, there: files.Status | undefined): string | undefined {
    const calls = native().files;
    if (!there) {
      const result = calls.rename(directory, temporary, directory, name, k.RENAME_NOREPLACE);
      if (result === -k.EEXIST) return 'something of that name is being made there at this moment';
      files.must(result, 'renameat2', path);
      return undefined;
    }
    files.must(calls.rename(directory, temporary, directory, name, k.RENAME_EXCHANGE), 'renameat2', path);
    // What was there has the other name now: is it what was looked at?
    if (this.#isStill(directory, temporary, path, there)) return undefined;
    files.must(calls.rename(directory, temporary, directory, name, k.RENAME_EXCHANGE), 'renameat2', path);
    return 'it is being changed there at this moment';
  }

  #isStill(directory: number, name: Buffer, path: Buffer, there: files.Status): boolean {
    const now = files.statusOf(directory, name, path);
    return (
      now !== undefined &&
      now.identity === there.identity &&
      now.size === there.size &&
      now.mode === there.mode &&
      now.seconds === there.seconds &&
      now.nanoseconds === there.nanoseconds
    );
  }

  #copy(directory: number, temporary: Buffer, place: Place, contents: (() => number) | undefined): void {
    const { path, status } = place;
    const from = contents ? contents() : files.openFile(place.directory, place.name, path);
    try {
      const to = files.open(directory, temporary, k.O_WRONLY | k.O_CREAT | k.O_EXCL, path, 0o600);
      try {
        copyContents(from, to, status.size, path);
        // The very file that was written, whatever has its name by now.
        this.#dressObject(to, place);
      } finally {
        files.close(to);
      }
    } finally {
      files.close(from);
    }
  }

  /** False if it is not there any more. */
  #link(path: Buffer, directory: number, temporary: Buffer): boolean {
    const names = components(path);
    const last = names.pop() as Buffer;
    let above = this.#target;
    try {
      for (const name of names) {
        const next = native().files.open(above, name, k.O_PATH | k.O_DIRECTORY, 0, 0);
        if (next < 0) return false;
        if (above !== this.#target) files.close(above);
        above = next;
      }
      return native().files.link(above, last, directory, temporary) === 0;
    } finally {
      if (above !== this.#target) files.close(above);
    }
  }

  #temporary(): Buffer {
    return Buffer.from(`${this.#prefix}${this.#count++}`);
  }
}
