import { IsolationError } from '../errors.js';
import type { IdMap } from '../namespace/types.js';
import type { Place } from './compare.js';
import { type Since, Unchanged } from './conflicts.js';
import { type Visitor, walkPart } from './differences.js';
import * as files from './files.js';
import { idsInside, sameIds } from './ids-inside.js';
import type { ChangeLine } from './list-changes.js';
import { components, join, printable } from './names.js';
import type { OverlayPrefix } from './overlay-attributes.js';
import { type PartOrder, partsOf } from './part-order.js';
import { Placement } from './placement.js';
import { ByteSource, piecesIn } from './streams.js';
import type { TaskDescriptors } from './task.js';

// The task behind OverlayRootfs.apply(): accepted changes into a directory of the host. What is written comes from a stranger, and the
// directory may be changed by others meanwhile: each entry is made under another name and then put in its place by one rename, which is
// taken back if it has hit something else than what was looked at.

export interface ApplyRequest {
  readonly prefix: OverlayPrefix;
  readonly parts: readonly PartOrder[];
  readonly map: IdMap | undefined;
  /** Files get the owners that they have inside; else they are the caller's. */
  readonly keepOwners: boolean;
  readonly dryRun: boolean;
  /** The target is itself a layer below: what has changed in it since then is told by its inodes' times alone. */
  readonly since: Since | undefined;
}

export interface ApplyOutcome {
  readonly applied: readonly ChangeLine[];
  readonly conflicts: readonly { readonly change: ChangeLine; readonly reason: string }[];
  /** What was written, and when: not to be taken for a stranger's change next time. */
  readonly marks: readonly (readonly [path: string, changed: string])[];
}

/** The accepted changes are the input, as list-changes.ts has told them. The target is the last of the lent descriptors. */
export function run(request: ApplyRequest, { input, lent }: TaskDescriptors): ApplyOutcome {
  const application = new Application(request, lent.at(-1) as number, acceptedFrom(input as number));
  try {
    for (const part of partsOf(request.parts, lent)) {
      application.begin(part.target);
      walkPart(part, request.prefix, application);
      application.end();
    }
  } finally {
    application.end();
  }
  return application.outcome();
}

function acceptedFrom(input: number): Set<string> {
  const source = new ByteSource(piecesIn(input));
  const chunks: Buffer[] = [];
  for (let bytes = source.some(2 ** 18); bytes; bytes = source.some(2 ** 18)) chunks.push(Buffer.from(bytes));
  return new Set(Buffer.concat(chunks).toString('utf8').split('\n').filter(Boolean));
}

/** A directory of the target that we are in; `why` it is not to be had. */
interface Level {
  readonly fd: number | undefined;
  readonly why: string;
  /** It would be made now, were this more than a trial. */
  readonly pretended: boolean;
  readonly path: Buffer;
  touched: boolean;
}

class Application implements Visitor {
  readonly #request: ApplyRequest;
  readonly #target: number;
  readonly #accepted: Set<string>;
  readonly #unchanged: Unchanged;
  readonly #placement: Placement;
  readonly #levels: Level[] = [];
  readonly #applied: ChangeLine[] = [];
  readonly #conflicts: { change: ChangeLine; reason: string }[] = [];
  readonly #marks: [string, string][] = [];

  constructor(request: ApplyRequest, target: number, accepted: Set<string>) {
    this.#request = request;
    this.#target = target;
    this.#accepted = accepted;
    this.#unchanged = new Unchanged(request.since);
    this.#placement = new Placement(target, request.map ? idsInside(request.map) : sameIds, request.keepOwners);
  }

  /** Directories above a part. */
  begin(part: Buffer): void {
    if (part.length === 0) return;
    this.#levels.push({ fd: files.openDirectory(this.#target, files.self, files.self), why: '', pretended: false, path: files.self, touched: false });
    const names = components(part);
    let path = files.self;
    for (const name of names.slice(0, -1)) {
      path = join(path, name);
      this.#enter(name, path);
    }
  }

  end(): void {
    while (this.#levels.length > 0) this.leave();
  }

  outcome(): ApplyOutcome {
    for (const line of this.#accepted) {
      this.#conflicts.push({ change: JSON.parse(line) as ChangeLine, reason: 'it has changed again since it was shown' });
    }
    return { applied: this.#applied, conflicts: this.#conflicts, marks: this.#marks };
  }

  deleted(below: Place): void {
    this.#act(['deleted', below.status.type, below.path.toString('latin1')], (level) => {
      const { name, path } = below;
      const there = level.fd === undefined ? undefined : files.statusOf(level.fd, name, path);
      // Somebody has deleted it already.
      if (!there) return undefined;
      const reason = this.#unchanged.reason({ directory: level.fd as number, name, path, status: there }, below);
      if (reason || this.#request.dryRun) return reason;
      return this.#placement.remove(level.fd as number, name, path, there);
    });
  }

  directory(kind: 'added' | 'modified' | 'times' | 'same', place: Place, below: Place | undefined): void {
    const { path } = place;
    // A part's root has no name in the part.
    const name = components(path).at(-1) ?? files.self;
    const isRoot = path.length === 0;
    let pretended = false;
    if (kind === 'added' || kind === 'modified') {
      this.#act([kind, 'directory', path.toString('latin1')], (level) => {
        const there = level.fd === undefined ? undefined : files.statusOf(level.fd, name, path);
        const hostile = this.#placement.refuses(place);
        if (hostile) return hostile;
        if (there?.type === 'directory') return this.#request.dryRun || kind === 'added' ? undefined : this.#placement.dress(level.fd as number, name, place);
        if (!there && below && below.status.type === 'directory') return 'it is not there any more';
        const reason = there && (below ? this.#unchanged.reason({ directory: level.fd as number, name, path, status: there }, below) : isThere(there));
        if (reason) return reason;
        pretended = this.#request.dryRun;
        return pretended ? undefined : this.#placement.directory(level.fd as number, place, there);
      });
    }
    if (isRoot) this.#levels.push({ fd: files.openDirectory(this.#target, files.self, path), why: '', pretended: false, path, touched: false });
    else if (pretended) this.#levels.push({ fd: undefined, why: '', pretended, path, touched: false });
    else this.#enter(name, path);
  }

  leave(): void {
    const level = this.#levels.pop();
    if (level?.fd === undefined) return;
    if (level.touched) this.#marks.push([level.path.toString('latin1'), files.statusOfOpen(level.fd, level.path).changed]);
    files.close(level.fd);
  }

  file(kind: 'added' | 'modified' | 'same', place: Place, contents: (() => number) | undefined, below: Place | undefined): void {
    if (kind === 'same') return;
    const { name, path, status } = place;
    this.#act([kind, status.type, path.toString('latin1')], (level) => {
      const hostile = this.#placement.refuses(place);
      if (hostile) return hostile;
      const there = level.fd === undefined ? undefined : files.statusOf(level.fd, name, path);
      const target = there && { directory: level.fd as number, name, path, status: there };
      if (target && this.#unchanged.isSame(place, target, contents)) return undefined;
      if (below && !there) return 'it is not there any more';
      const reason = target && (below ? this.#unchanged.reason(target, below) : isThere(target.status));
      if (reason || this.#request.dryRun) return reason;
      return this.#placement.file(level.fd as number, place, contents, there);
    });
  }

  /** If this change was accepted: does it, or says why not. */
  #act(change: ChangeLine, act: (level: Level) => string | undefined): void {
    if (!this.#accepted.delete(JSON.stringify(change))) return;
    const level = this.#levels.at(-1) ?? { fd: this.#target, why: '', pretended: false, path: files.self, touched: false };
    let reason: string | undefined;
    if (level.fd === undefined && !level.pretended) reason = level.why;
    else {
      try {
        reason = act(level);
      } catch (error) {
        // A refusal of the host's is this change's alone.
        if (!(error instanceof IsolationError)) throw error;
        reason = error.message;
      }
    }
    if (reason !== undefined) {
      this.#conflicts.push({ change, reason });
      return;
    }
    this.#applied.push(change);
    if (this.#request.dryRun || level.fd === undefined) return;
    level.touched = true;
    const [, , path] = change;
    const name = components(Buffer.from(path, 'latin1')).at(-1);
    const status = name && files.statusOf(level.fd, name, Buffer.from(path, 'latin1'));
    if (status) this.#marks.push([path, status.changed]);
  }

  #enter(name: Buffer, path: Buffer): void {
    const above = this.#levels.at(-1);
    const absent = (why: string): void => void this.#levels.push({ fd: undefined, why, pretended: false, path, touched: false });
    if (above?.fd === undefined) {
      absent(above?.pretended ? 'its directory was not accepted' : (above?.why ?? ''));
      return;
    }
    const status = files.statusOf(above.fd, name, path);
    if (status?.type === 'directory') this.#levels.push({ fd: files.openDirectory(above.fd, name, path), why: '', pretended: false, path, touched: false });
    else if (!status) absent(`its directory ${printable(path)} is not there`);
    else absent(`${printable(path)} is a ${status.type} there, not a directory`);
  }
}

const isThere = ({ type }: files.Status): string => `there is a ${type} of that name now`;
