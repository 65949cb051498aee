import { caller } from '../host/caller.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd } from '../plan/steps.js';
import { type Server, slotsOf, startServers } from './drivers/fuse-server.js';
import { newFilesystem } from './filesystem.js';
import { type LowerContext, openLower, type PartSource } from './lowers.js';
import type { Made } from './make-root.js';
import { mountAbilities } from './mount-abilities.js';
import { enterOwner } from './ordinary-owner.js';
import type { RootMount } from './root-mount.js';
import { Stage } from './stage.js';
import { attach, openTarget } from './targets.js';

/** Overlays of what lies below the writable layers of a root. */
export function belowOf(plan: PlanBuilder, parts: readonly PartSource[], context: LowerContext): RootMount[] {
  return parts.map(({ target, lowers }) => {
    plan.label('look below the writable layer', target);
    const opened = lowers.map((lower) => openLower(plan, lower, context));
    // An overlay without a writable layer has at least two others (ovl_fill_super).
    if (opened.length === 1 && context.stage.driver.name === 'overlay') opened.push(context.stage.hold(newFilesystem(plan, 'tmpfs', {}, k.MOUNT_ATTR_RDONLY)));
    const { stage } = context;
    const mount = stage.driver.mount(plan, stage, { lowers: opened, userxattr: !context.privileged, volatile: false, writable: undefined });
    for (const used of opened) stage.release(used);
    return { target, mount };
  });
}

/** One tree of them. */
export function assemble(plan: PlanBuilder, [root, ...others]: readonly RootMount[]): RootMount {
  if (!root) throw new RangeError('a root has a part');
  const isAttached = !mountAbilities().detached;
  if (isAttached) plan.add('move_mount', [root.mount, '', cwd, '/', k.MOVE_MOUNT_F_EMPTY_PATH]);
  for (const { target, mount } of others) {
    plan.label('mount part of the root', target);
    attach(plan, mount, openTarget(plan, root.mount, target));
    plan.release(mount);
  }
  return { ...root, isAttached };
}

export interface Below {
  readonly fd: number;
  close(): Promise<void>;
}

/**
 * A descriptor of the root as it would be without its writable layers: a detached mount of its lower ones, put together by the kernel. One of
 * which the root itself has kept a mount, where it has to be attached, is borrowed.
 */
export async function lookBelow(made: Made): Promise<Below> {
  if (made.below !== undefined) return holding(native().duplicate(made.below, 0), []);
  const plan = new PlanBuilder();
  const { owner } = made;
  if (owner) {
    enterOwner(plan, owner);
    plan.label('become root inside').add('setresgid', [0, 0, 0]);
    plan.add('setresuid', [0, 0, 0]);
  } else plan.in('parent');
  const userns = made.ids.userns === undefined ? undefined : native().duplicate(made.ids.userns, 0);
  if (userns !== undefined) plan.slot('user namespace', userns);
  const context: LowerContext = {
    privileged: caller().privileged,
    kit: made.kit === undefined ? undefined : plan.slot('kit', native().duplicate(made.kit, 64)),
    base: plan.slot('base', native().duplicate(made.base, 64)),
    userns,
    stage: new Stage(plan, made.driver),
    held: new Map(),
  };
  const { mount } = assemble(plan, belowOf(plan, made.parts, context));
  const { servers } = context.stage;
  for (const slot of [mount, ...slotsOf(servers)]) plan.keep(slot);
  const fdOf = await runPlan(plan);
  const fd = fdOf(mount);
  try {
    return holding(fd, await startServers(servers, fdOf, owner));
  } catch (error) {
    native().close(fd);
    throw error;
  }
}

const holding = (fd: number, servers: readonly Server[]): Below => ({
  fd,
  close: async () => {
    native().close(fd);
    await Promise.all(servers.map((server) => server.end()));
  },
});
