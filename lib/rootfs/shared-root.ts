import { statSync } from 'node:fs';
import { join } from 'node:path';
import { IsolationError, optionError } from '../errors.js';
import { caller } from '../host/caller.js';
import * as k from '../plan/constants.js';
import { type Ids, idsFor, sameMap } from '../security/id-map.js';
import { leaseRange } from '../security/id-range.js';
import { removeTree } from '../tree/tree.js';
import { type Below, lookBelow } from './below.js';
import { type BranchesChange, changeMounted } from './drivers/branches.js';
import { closeRoot, isKept, type Made, makeRoot, type RootSettings, workOf } from './make-root.js';
import { tryMounts } from './mount-abilities.js';
import { upperName } from './overlay.js';
import { emptyDirectory } from './writable-layer.js';

/** What a spawn needs of a root that it borrows. Descriptors are the root's. */
export interface RootUse extends Made {
  release(): void;
}

/** Held while the writable layer is read. */
export interface RootReading {
  readonly made: Made;
  readonly below: number;
  release(): void;
}

/** Directories of callers' that are writable layers of this process's roots: the kernel would mount one twice, and both would be undefined. */
const uppersInUse = new Set<string>();

/** A root and those who use it: made for the first of them, and taken away when it has been disposed of and the last has left. */
export class SharedRoot {
  #settings: RootSettings;
  #ids: Ids | undefined;
  #made: Promise<Made> | undefined;
  /** What lies below the writable layer, opened when first needed. */
  #below: Promise<Below> | undefined;
  #changes: Promise<void> = Promise.resolve();
  /** Whoever comes while it is reset waits for that. Never rejects. */
  #resetting: Promise<void> | undefined;
  #claimed: string | undefined;
  #users = 0;
  #disposed = false;
  #released: (() => void) | undefined;
  readonly #end: Promise<void>;

  private constructor(settings: RootSettings) {
    this.#settings = settings;
    this.#end = new Promise((resolve) => {
      this.#released = resolve;
    });
  }

  /** Takes over what the settings hold. `decided`: the ids are those that were asked for, not those of its first spawn. */
  static async begin(settings: RootSettings, decided: boolean, trial = true): Promise<SharedRoot> {
    const root = new SharedRoot(settings);
    await root.#begin(decided, trial);
    return root;
  }

  async #begin(decided: boolean, trial: boolean): Promise<void> {
    const { idMap, upper } = this.#settings;
    try {
      if (isKept(this.#settings)) this.#claim(upper);
      await tryMounts();
      // With 'auto' the ids are those of the first spawn. Trying now tells at once what the kernel thinks of these layers.
      const kept = !decided && isKept(this.#settings) && caller().mayMapRanges ? await leaseRange(ownerOf(this.#settings), true) : undefined;
      if (kept) await this.#decide(kept);
      else if (decided) await this.#decide(await idsFor(idMap, caller(), { uid: 0, gid: 0 }));
      else if (trial) await closeRoot(await makeRoot(this.#settings, await idsFor('auto', caller(), { uid: 0, gid: 0 }), true));
    } catch (error) {
      await this.#cleanUp(undefined);
      throw error;
    }
  }

  #claim(upper: string): void {
    const status = statSync(upper, { bigint: true, throwIfNoEntry: false });
    if (!status) return;
    const key = `${status.dev}:${status.ino}`;
    if (uppersInUse.has(key)) {
      throw new IsolationError('ERR_CLOISTER_BUSY', `${upper} is the writable layer of another root`, {
        step: 'use the writable layer',
        path: upper,
        hint: 'A directory is the writable layer of one root at a time: use that root, or dispose of it first.',
      });
    }
    uppersInUse.add(key);
    this.#claimed = key;
  }

  /** Takes the ids over. */
  #decide(ids: Ids): Promise<Made> {
    this.#ids = ids;
    this.#made = makeRoot(this.#settings, ids);
    return this.#made;
  }

  get settings(): RootSettings {
    return this.#settings;
  }

  /** Those that its files are owned by, once that has been decided. */
  get ids(): Ids | undefined {
    return this.#ids;
  }

  /** These ids, if none have been decided: several spawns at once may each have brought some. */
  propose(ids: Ids): void {
    if (this.#made || this.#resetting || (this.#disposed && this.#users === 0)) return;
    // Whoever uses it is told why that fails.
    this.#decide(ids.retain()).catch(() => {});
  }

  /** One more spawn, with these ids, uses it. Call `release` once. */
  async use(ids: Ids): Promise<RootUse> {
    this.#enter();
    try {
      await this.#resetting;
      this.propose(ids);
      const made = (await this.#made) as Made;
      refuseDead(made);
      if (!sameMap(ids.map, made.ids.map)) {
        throw optionError('idMap', "'auto', or the map that the OverlayRootfs was made with: its files are owned by those ids", ids.map);
      }
      return { ...made, release: () => this.#leave() };
    } catch (error) {
      this.#leave();
      throw error;
    }
  }

  refuseDisposed(): void {
    if (this.#disposed) throw new IsolationError('ERR_CLOISTER_DISPOSED', 'this OverlayRootfs has been disposed');
  }

  #enter(): void {
    this.refuseDisposed();
    this.#users++;
  }

  #leave(): void {
    this.#users--;
    if (this.#users === 0 && this.#disposed) void this.#finish();
  }

  /** undefined: nothing has ever been written to it. */
  async read(): Promise<RootReading | undefined> {
    this.#enter();
    try {
      await this.#resetting;
      if (!this.#made && !isKept(this.#settings)) {
        this.#leave();
        return undefined;
      }
      if (!this.#made) {
        const ids = await idsFor('auto', caller(), { uid: 0, gid: 0 });
        this.propose(ids);
        ids.release();
      }
      const made = (await this.#made) as Made;
      refuseDead(made);
      this.#below ??= lookBelow(made);
      return { made, below: (await this.#below).fd, release: () => this.#leave() };
    } catch (error) {
      this.#below = undefined;
      this.#leave();
      throw error;
    }
  }

  async #close(): Promise<Made | undefined> {
    const made = await this.#made?.catch(() => undefined);
    const below = await this.#below?.catch(() => undefined);
    this.#made = this.#below = undefined;
    await below?.close();
    return made;
  }

  async #finish(): Promise<void> {
    await this.#cleanUp(await this.#close());
    this.#released?.();
  }

  async #cleanUp(made: Made | undefined): Promise<void> {
    const { ownUpper, upper, frozen } = this.#settings;
    // While there are namespaces in which all of its files can be removed.
    for (const layer of frozen) await layer.release(made?.owner);
    if (ownUpper && made) await emptyDirectory(upper, made.owner).catch(() => {});
    if (made) await closeRoot(made);
    if (ownUpper) await removeTree(upper);
    this.#settings.hold?.release();
    if (this.#claimed !== undefined) uppersInUse.delete(this.#claimed);
  }

  /** Nothing has been written to it from now on. */
  async reset(): Promise<void> {
    this.#enter();
    try {
      if (this.#users > 1) {
        throw new IsolationError('ERR_CLOISTER_BUSY', 'a root that is in use cannot be reset', {
          hint: 'Wait until what runs in it, or reads its changes, has ended.',
        });
      }
      const done = this.#beginAnew();
      const over = (): void => {
        this.#resetting = undefined;
      };
      this.#resetting = done.then(over, over);
      await done;
    } finally {
      this.#leave();
    }
  }

  async #beginAnew(): Promise<void> {
    const made = await this.#close();
    if (!made && !isKept(this.#settings)) return;
    const { upper } = this.#settings;
    const ids = made?.ids.retain();
    if (upper !== 'tmpfs') await emptyDirectory(upper, made?.owner);
    // What the last mount has left there: a volatile one forbids the next.
    if (isKept(this.#settings)) await emptyDirectory(workOf(upper), made?.owner, k.O_NOFOLLOW);
    if (made) await closeRoot(made);
    if (ids) await this.#decide(ids);
  }

  /** One after the other: each begins with the layers that the one before has left. */
  async changeBranches(changeOf: (settings: RootSettings) => BranchesChange): Promise<void> {
    const turn = this.#changes.then(() => this.#changeBranches(changeOf(this.#settings)));
    this.#changes = turn.catch(() => {});
    await turn;
  }

  async #changeBranches(change: BranchesChange): Promise<void> {
    if (change.mounted.what === 'del' && this.#users > 0) {
      throw new IsolationError('ERR_CLOISTER_BUSY', 'a root that is in use cannot lose a layer', {
        path: change.directory,
        hint: 'Wait until what runs in it has ended.',
      });
    }
    this.#enter();
    try {
      const made = await this.#made;
      const changed = made && (await changeMounted(made, change));
      this.#settings = { ...this.#settings, ...change.settings };
      const below = await this.#below;
      this.#below = undefined;
      await below?.close();
      if (changed) this.#made = Promise.resolve(changed);
    } finally {
      this.#leave();
    }
  }

  /** While somebody uses it, the last of them takes it away. */
  async dispose(): Promise<void> {
    if (!this.#disposed) {
      this.#disposed = true;
      if (this.#users === 0) await this.#finish();
    }
    if (this.#users === 0) await this.#end;
  }
}

/** Nothing of a mount can be had when the program that answers for it has been killed. reset() starts another. */
function refuseDead({ driver, servers }: Made): void {
  const over = servers.map((server) => server.over).find((how) => how !== undefined);
  if (over === undefined) return;
  throw new IsolationError('ERR_CLOISTER_ROOTFS', `the root has lost its program ${driver.name}, which has ended: ${over}`, {
    step: 'use the root',
    hint: 'reset() begins anew, without what was written; a writable layer in a directory of yours is still there.',
  });
}

/** With 'auto', the ids of a directory that is kept are those that it has from last time. */
function ownerOf({ upper, layers }: RootSettings): number | undefined {
  // In one that the host's tree is below there is a directory for each part of it.
  return statSync(layers ? upper : join(upper, upperName(0)), { throwIfNoEntry: false })?.uid;
}
