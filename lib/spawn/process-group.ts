import { availableParallelism } from 'node:os';
import { canBeBornInNew } from '../cgroup/birth.js';
import { Cgroup } from '../cgroup/cgroup.js';
import { killAll, removeTree } from '../cgroup/ending.js';
import { type LastCounts, lastCounts } from '../cgroup/last-counts.js';
import { type Limits, noLimits } from '../cgroup/limits.js';
import { type Recipe, recipeFor } from '../cgroup/make.js';
import { ownedName } from '../cgroup/owner-name.js';
import { type Place, v2Of } from '../cgroup/places.js';
import type { CgroupStats } from '../cgroup/types.js';
import { CgroupError, IsolationError } from '../errors.js';
import type { ResourceUsage } from './types.js';

/** What its group says of a program that has ended. */
export type GroupUsage = Partial<ResourceUsage>;

/** The control group of one spawn: its own, made for its limits and removed at its end, or one that is borrowed. */
export class ProcessGroup {
  readonly cgroup: Cgroup;
  /** Of a group of its own: the plan makes it. */
  readonly recipe: Recipe | undefined;
  readonly places: readonly Place[];
  /** A child cannot be born in it: lib/cgroup/birth.ts. */
  readonly movesItself: boolean;
  readonly #before: CgroupStats | undefined;
  #usedUs = 0;
  #timer: NodeJS.Timeout | undefined;

  private constructor(cgroup: Cgroup, movesItself: boolean, recipe: Recipe | undefined, before: CgroupStats | undefined) {
    this.movesItself = movesItself;
    this.cgroup = cgroup;
    this.recipe = recipe;
    this.places = cgroup.places;
    this.#before = before;
  }

  /** `moves`: the child goes there by itself, as clone(2) cannot bring it there. */
  static async for(choice: Cgroup | Limits, detached: boolean, moves = false): Promise<ProcessGroup> {
    if (choice instanceof Cgroup) {
      const before = await choice.stats();
      // It would stop before its program, with copies of what other sandboxes wait for the end of.
      if (before.freezer !== 'thawed') {
        throw new CgroupError('ERR_CLOISTER_BUSY', `the control group ${choice.name} is frozen, so nothing can be started in it`, {
          step: 'enter the control group',
          hint: 'thaw() it first.',
        });
      }
      return new ProcessGroup(choice, moves || !(await choice.givesBirth()), undefined, before);
    }
    const name = ownedName(detached);
    const recipe = await recipeFor(name, choice ?? noLimits);
    const v2 = v2Of(recipe.places);
    const movesItself = v2 !== undefined && (moves || !(await canBeBornInNew(v2.directory)));
    return new ProcessGroup(new Cgroup(name, recipe.places, recipe), movesItself, recipe, undefined);
  }

  /** A member can be killed for what the others use. */
  get mayRunOutOfMemory(): boolean {
    return this.places.some(({ hierarchy }) => hierarchy.controllers.includes('memory'));
  }

  /** Calls back when the group has used as much processor time as that, since it was borrowed or made. */
  limitTime(milliseconds: number, reached: () => void): void {
    const look = async (): Promise<void> => {
      const stats = await this.cgroup.stats().catch(() => undefined);
      if (!stats || this.#timer === undefined) return;
      const left = milliseconds - this.#countTime(stats) / 1000;
      if (left <= 0) reached();
      // It cannot be used up sooner than by all processors together; that many looks are needed, and no more; nor more often than each 5 ms.
      else this.#timer = setTimeout(look, Math.max(5, left / availableParallelism())).unref();
    };
    this.#timer = setTimeout(look, milliseconds / availableParallelism()).unref();
  }

  #countTime({ cpu }: { readonly cpu?: CgroupStats['cpu'] | undefined }): number {
    this.#usedUs = (cpu?.usageUs ?? 0) - (this.#before?.cpu?.usageUs ?? 0);
    return this.#usedUs;
  }

  get usedMs(): number {
    return this.#usedUs / 1000;
  }

  stopWatching(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** The program has ended: what it has used, read before its own group, with whatever still runs in it, is removed. */
  async finish(): Promise<GroupUsage> {
    this.stopWatching();
    try {
      if (!this.recipe) {
        const stats = await this.cgroup.stats();
        this.#countTime(stats);
        return borrowed(this.#before as CgroupStats, stats);
      }
      let counts = await lastCounts(this.places);
      if (counts.populated) {
        await this.cgroup.kill();
        counts = await lastCounts(this.places);
      }
      this.#countTime(counts);
      this.cgroup.forget();
      await Promise.all(this.places.map(({ directory }) => removeTree(directory)));
      return own(counts);
    } catch (error) {
      await this.discard();
      // Somebody has removed the group meanwhile: there is nothing to tell of it any more.
      if (error instanceof IsolationError) return {};
      throw error;
    }
  }

  /** After a start that failed: of its own group, what there is of it. */
  async discard(): Promise<void> {
    this.stopWatching();
    if (!this.recipe) return;
    this.cgroup.forget();
    for (const { directory } of this.recipe.places) {
      await killAll(directory).catch(() => {});
      await removeTree(directory).catch((_: CgroupError) => {});
    }
  }
}

function own({ cpu, io, memoryPeak, oomKills, pidsPeak }: LastCounts): GroupUsage {
  const sum = (key: 'readBytes' | 'writeBytes'): number => Object.values(io ?? {}).reduce((bytes, device) => bytes + device[key], 0);
  return {
    ...(cpu ? { cpuUserMs: cpu.userUs / 1000, cpuSystemMs: cpu.systemUs / 1000 } : {}),
    ...(memoryPeak === undefined ? {} : { memoryPeakBytes: memoryPeak, memoryPeakSource: 'cgroup' }),
    ...(oomKills === undefined ? {} : { oomKills }),
    ...(pidsPeak === undefined ? {} : { pidsPeak }),
    ...(io ? { ioReadBytes: sum('readBytes'), ioWriteBytes: sum('writeBytes') } : {}),
  };
}

/** Others are in it, too: only what cannot be had otherwise, as the change since it was borrowed. */
function borrowed(before: CgroupStats, after: CgroupStats): GroupUsage {
  const kills = after.memory && after.memory.events.oomKill - (before.memory?.events.oomKill ?? 0);
  const peak = after.pids?.peak;
  return {
    ...(kills === undefined ? {} : { oomKills: kills }),
    ...(peak === undefined ? {} : { pidsPeak: Math.max(0, peak - (before.pids?.peak ?? 0)) }),
  };
}
