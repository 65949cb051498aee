import { statSync } from 'node:fs';
import type { IdMap } from '../namespace/types.js';
import { native } from '../native.js';
import type { PlanBuilder } from '../plan/builder.js';
import { cwd, type Slot } from '../plan/steps.js';
import { outside, rootOutside } from '../security/id-map.js';
import type { LayersByName } from './drivers/driver.js';
import { cloneMount, openDirectory } from './filesystem.js';
import { openHostTree } from './host-tree.js';
import { mountAbilities } from './mount-abilities.js';
import { layer, type RootAttributes } from './overlay.js';
import type { Stage } from './stage.js';

// What lies below a writable layer, told in a way that it can be opened again: for the root, and to look at it without that layer.

export type Lower =
  /** A layer: a directory of the host; `writable`: written to as well, where the driver has such. `within`: one above it that has many layers, and nothing mounted in it. */
  | { readonly kind: 'directory'; readonly path: string; readonly writable?: boolean; readonly within?: string | undefined }
  /** A mount of the host. */
  | { readonly kind: 'mount'; readonly path: string; readonly idmapped: boolean }
  /** A directory of the kit of the host's root. */
  | { readonly kind: 'kit'; readonly name: string }
  /** A directory beside the upper ones. */
  | { readonly kind: 'base'; readonly name: string }
  /** The host's tree as one: `/`, and mounts in it; `recursive`: as they are. */
  | {
      readonly kind: 'host';
      readonly recursive: boolean;
      readonly idmapped: boolean;
      readonly mounts: readonly { readonly path: string; readonly idmapped: boolean }[];
    }
  /** A directory of a tree that is held by a descriptor: '' is its root. `path`: where it is, if that has a place. */
  | { readonly kind: 'held'; readonly fd: number; readonly name: string; readonly path: string | undefined };

/** One overlay of a root. */
export interface PartSource {
  /** '/' or where in the root it is mounted. */
  readonly target: string;
  /** Its upper directory's name; '' where the base is that itself. */
  readonly upper: string;
  /** Uppermost first. */
  readonly lowers: readonly Lower[];
  /** What the upper directory was like when it was made; undefined: it was there before. */
  readonly root: RootAttributes | undefined;
}

/**
 * A part looks like the directory that it covers: overlayfs shows the upper one's permissions, and who may not look into a directory of the
 * host's may not inside either. But the root itself is made for everybody, whatever the directory of its layer is.
 */
export function rootAttributes(target: string, [top]: readonly Lower[], ids: OwnerIds): RootAttributes {
  const owner = ids === 'ordinary' || ids === 'host' ? undefined : rootOutside(ids);
  const plain: RootAttributes = { mode: 0o755, owner };
  if (!top || (target === '/' && top.kind !== 'held')) return plain;
  const status = statusOf(top, target);
  if (!status) return plain;
  const mode = status.mode & 0o7777;
  if (ids === 'ordinary') return { mode, owner };
  if (ids === 'host') return { mode, owner: { uid: status.uid, gid: status.gid } };
  if (top.kind === 'mount' && !top.idmapped) return { mode, owner };
  return { mode, owner: { uid: outside(ids.uids, status.uid) ?? (owner?.uid as number), gid: outside(ids.gids, status.gid) ?? (owner?.gid as number) } };
}

/** The map of the inside; 'host': there is none; 'ordinary': whoever makes it has no other ids. */
export type OwnerIds = IdMap | 'host' | 'ordinary';

function statusOf(top: Lower, target: string): { mode: number; uid: number; gid: number } | undefined {
  if (top.kind === 'directory') return statSync(top.path, { throwIfNoEntry: false });
  // The layer that hides has only what it hides; a root's own tree has nothing but names.
  if (top.kind !== 'held') return statSync(target, { throwIfNoEntry: false });
  return statSync(`/proc/self/fd/${top.fd}/${top.name}`, { throwIfNoEntry: false });
}

export interface LowerContext {
  readonly privileged: boolean;
  readonly kit: Slot | undefined;
  readonly base: Slot | undefined;
  /** Owners are mapped by it; a descriptor that stays open until the steps have run. */
  readonly userns: number | undefined;
  /** Of what has to be attached while it is made a layer. */
  readonly stage: Stage;
  /** Trees that are held by a descriptor, and copies of what has many layers in it: one slot for all that is taken from one. */
  readonly held: Map<number | string, Slot>;
  /** Copies of all of the host's mounts, from before anything was attached: a later one would have that on top. */
  readonly hostTrees?: Slot[];
}

/** The lowest of these, as many as lie in one store: they are named to overlayfs where they are, in one step. */
export function layersByName(plan: PlanBuilder, lowers: readonly Lower[], context: LowerContext): LayersByName | undefined {
  const last = lowers.at(-1);
  const within = last?.kind === 'directory' ? last.within : undefined;
  if (within === undefined || context.stage.driver.name !== 'overlay' || !mountAbilities().detached) return undefined;
  const first = lowers.findLastIndex((lower) => lower.kind !== 'directory' || lower.within !== within) + 1;
  const names = lowers.slice(first).map((lower) => (lower as { path: string }).path.slice(within.length + 1));
  plan.label('use a layer', within);
  return { directory: storeOf(plan, within, context), path: within, names };
}

/** One mount whose owners are mapped, for all of them: a copy for each would take twice as many calls, and longer ones. */
function storeOf(plan: PlanBuilder, within: string, { held, privileged, userns }: LowerContext): Slot {
  const shared = held.get(within) ?? (privileged && userns !== undefined ? cloneMount(plan, cwd, within, { userns }) : openDirectory(plan, cwd, within));
  held.set(within, shared);
  return shared;
}

/** A slot that overlayfs takes as a layer. */
export function openLower(plan: PlanBuilder, lower: Lower, context: LowerContext): Slot {
  const { stage } = context;
  const userns = context.privileged && stage.driver.mapsOwners ? context.userns : undefined;
  // One that is mapped, or goes to another process, is a mount of its own.
  const isMount = userns !== undefined || stage.driver.layersAreMounts;
  switch (lower.kind) {
    case 'directory':
      if (userns !== undefined && lower.within !== undefined && !stage.driver.layersAreMounts && mountAbilities().detached) {
        return openDirectory(plan, storeOf(plan, lower.within, context), lower.path.slice(lower.within.length + 1));
      }
      return isMount ? layer(plan, stage, lower.path, userns) : openDirectory(plan, cwd, lower.path);
    case 'mount':
      return context.privileged || isMount ? layer(plan, stage, lower.path, lower.idmapped ? userns : undefined) : openDirectory(plan, cwd, lower.path);
    case 'host':
      return openHostTree(plan, context, lower, userns);
    case 'kit':
      return cloneMount(plan, context.kit as Slot, lower.name, { userns });
    case 'base':
      return stage.driver.layersAreMounts ? cloneMount(plan, context.base as Slot, lower.name) : openDirectory(plan, context.base as Slot, lower.name);
    case 'held': {
      // On kernels where a layer has to be attached, a tree that is held has a place.
      if (!mountAbilities().detached && lower.path !== undefined) {
        return isMount ? layer(plan, stage, lower.path, userns) : openDirectory(plan, cwd, lower.path);
      }
      const from = context.held.get(lower.fd) ?? plan.slot('held layer', native().duplicate(lower.fd, 64));
      context.held.set(lower.fd, from);
      return isMount ? cloneMount(plan, from, lower.name, { userns }) : openDirectory(plan, from, lower.name || '.');
    }
  }
}
