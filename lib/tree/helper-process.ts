import { fileURLToPath } from 'node:url';
import { caller } from '../host/caller.js';
import { checked, native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { launchChild } from '../plan/launch.js';
import type { Slot } from '../plan/steps.js';
import { defaultSignalAction, noSignals } from '../plan/structs.js';
import type { Owner } from '../rootfs/ordinary-owner.js';
import type { Runner, TaskOrder } from './task.js';

// A task in a process of its own, as root of the user namespace that owns an ordinary user's mounts.

const main = fileURLToPath(new URL('./task-main.js', import.meta.url));

export async function startHelper(order: TaskOrder, owner: Owner): Promise<Runner> {
  const { result, input, output, lent } = order.descriptors;
  const given = [result, input, output, ...lent];
  const plan = new PlanBuilder();
  // Never 0, which means a plan without a child.
  plan.cloneFlags = k.CLONE_PIDFD;
  const borrow = (name: string, fd: number): Slot => plan.slot(name, checked(native().duplicate(fd, 64 + given.length), 'fcntl', 'borrow a descriptor'));
  let nothing = -1;
  try {
    nothing = checked(native().openFile('/dev/null'), 'open', 'start a helper');
    const slots = [nothing, nothing, nothing, ...given.map((fd) => fd ?? nothing)].map((fd, index) => borrow(`descriptor ${index}`, fd));
    plan.reportSlot = plan.slot('report pipe');
    plan.in('join');
    plan.joinFlags = 0;
    // As in join.ts: whoever is in that user namespace could read memory that is shared.
    plan.ownMemory = true;
    plan.label('become unreadable').add('prctl', [k.PR_SET_DUMPABLE, 0, 0, 0, 0]);
    plan.label('join the user namespace').add('setns', [borrow('user namespace', owner.user), k.CLONE_NEWUSER]);
    plan.label('join the mount namespace of the root').add('setns', [borrow('mount namespace', owner.mount), k.CLONE_NEWNS]);
    plan.in('child').label('become root inside');
    for (const signal of caller().ignoredSignals) plan.add('rt_sigaction', [signal, defaultSignalAction, 0, 8]);
    plan.add('setgroups', [0, null], { tolerate: [k.EPERM, k.EINVAL] });
    plan.add('setresgid', [0, 0, 0]);
    plan.add('setresuid', [0, 0, 0]);
    plan.label('die with the parent').add('prctl', [k.PR_SET_PDEATHSIG, k.SIGKILL, 0, 0, 0]);
    plan.add('expect_alive', []);
    plan.label('connect the streams');
    for (const [index, slot] of slots.entries()) plan.add('dup3', [slot, index, 0]);
    plan.label('close all other descriptors').add('dup3', [plan.reportSlot, slots.length, k.O_CLOEXEC]);
    plan.add('close_range', [slots.length + 1, 0xffffffff, 0]);
    plan.label('unblock signals').add('rt_sigprocmask', [k.SIG_SETMASK, noSignals, 0, 8]);
    const theirs: TaskOrder = {
      ...order,
      descriptors: {
        result: 3,
        input: input === undefined ? undefined : 4,
        output: output === undefined ? undefined : 5,
        lent: lent.map((_, index) => 6 + index),
      },
    };
    // Electron is Node only when told so. A deep tree needs a deep stack; this is what a worker has.
    const environment = ['ELECTRON_RUN_AS_NODE=1', 'NODE_NO_WARNINGS=1'];
    plan.label('start a helper', process.execPath);
    plan.add('exec', [[process.execPath], ['cloister-tree', '--stack-size=3900', main, JSON.stringify(theirs)], environment]);
  } catch (error) {
    for (const fd of plan.slots()) if (fd >= 0) native().close(fd);
    throw error;
  } finally {
    if (nothing >= 0) native().close(nothing);
  }
  return launchChild(plan);
}
