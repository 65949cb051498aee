import type { IdMap } from '../namespace/types.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import { cloneMount } from './filesystem.js';
import { hideLayer } from './hide-layer.js';
import { kernelDirectories } from './host-layout.js';
import type { HostRoot } from './host-root.js';
import { type Lower, type LowerContext, type PartSource, rootAttributes } from './lowers.js';
import { mountAbilities } from './mount-abilities.js';
import { type UpperSpace, upperName } from './overlay.js';
import { attach, openTarget } from './targets.js';

// The host's tree as one layer, for a driver that sees what is mounted in a layer: a program does, as it walks through it by names.

const hideName = 'hide';

/** Its inode has an owner that the mount's user namespace does not know: HAS_UNMAPPED_ID in fs/namei.c. To copy it up, the program would have to give it away. */
export const foreignFiles = '/ (files of other users can be read, but not be changed: EOVERFLOW, as their owners are not mapped)';

/** All of the host's mounts, with what is not to be seen covered by a layer of its own. */
export function hostPart(root: HostRoot, map: IdMap, ordinary: boolean, above: readonly Lower[]): PartSource {
  const tree: Lower = { kind: 'host', recursive: ordinary, mounts: root.shown.filter(({ path }) => path !== '/'), idmapped: root.shown[0]?.idmapped ?? false };
  const lowers: Lower[] = [...above, { kind: 'base', name: hideName }, tree];
  return { target: '/', upper: upperName(0), lowers, root: rootAttributes('/', lowers, ordinary ? 'ordinary' : map) };
}

/** A directory beside the upper one: in it the kernel's own file systems are empty directories, too. */
export function hideOnHost(plan: PlanBuilder, space: UpperSpace, { layout }: HostRoot, ordinary: boolean): void {
  const kernel = kernelDirectories.map((path) => ({ path, kind: 'directory' as const, mode: 0o755 }));
  hideLayer(plan, space.base, hideName, '/', { ...layout, hidden: [...layout.hidden, ...kernel] }, ordinary, space.owner, true);
}

/** Whoever cannot look below what is mounted in a tree can copy it only with that: has_locked_children in fs/namespace.c. */
export function copyHostTree(plan: PlanBuilder): Slot {
  plan.label("show the host's tree", '/');
  return cloneMount(plan, cwd, '/', { recursive: true });
}

/** A detached tree of mounts. */
export function openHostTree(plan: PlanBuilder, { stage, hostTrees }: LowerContext, lower: Lower & { kind: 'host' }, userns: number | undefined): Slot {
  plan.label("show the host's tree", '/');
  if (lower.recursive) return hostTrees?.pop() ?? copyHostTree(plan);
  const tree = cloneMount(plan, cwd, '/', { userns: lower.idmapped ? userns : undefined });
  if (lower.mounts.length === 0) return tree;
  stage.hold(tree);
  for (const { path, idmapped } of lower.mounts) {
    plan.label("show a mount of the host's", path);
    attach(plan, cloneMount(plan, cwd, path, { userns: idmapped ? userns : undefined }), openTarget(plan, tree, path));
  }
  if (mountAbilities().detached) return tree;
  const whole = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_RECURSIVE | k.AT_EMPTY_PATH;
  return plan.open("copy of the host's tree", 'open_tree', [tree, '', whole]);
}
