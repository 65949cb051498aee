import { Socket } from 'node:net';
import { IsolationError } from '../../errors.js';
import { caller } from '../../host/caller.js';
import { checked, native } from '../../native.js';
import { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import { launchChild } from '../../plan/launch.js';
import { runPlan } from '../../plan/run.js';
import { cwd, type Slot } from '../../plan/steps.js';
import { defaultSignalAction, mountAttr, noSignals } from '../../plan/structs.js';
import { newFilesystem } from '../filesystem.js';
import { newProc } from '../kernel-filesystems.js';
import { enterOwner, type Owner } from '../ordinary-owner.js';
import { program, type ServerOrder } from './fuse-overlayfs.js';

// The program behind a FUSE mount. It reads what a stranger's programs ask of it, so it has little: namespaces of its own but for the user's, in
// which the host's files are read-only, the layers are in /dev, where no device is, and of root's capabilities those for files.

export interface Server {
  /** What it said, once it has ended: nothing of the mount can be had any more. */
  readonly over: string | undefined;
  /** Ends it, and resolves when it has. */
  end(): Promise<void>;
}

/** What a plan has left of a `ServerOrder`. Descriptors are taken over, but that of the mount. */
interface ServerFiles {
  readonly mount: number;
  readonly device: number;
  readonly lowers: readonly number[];
  readonly space: number | undefined;
}

const place = '/dev';

/** Starts those that a plan has made mounts for. On failure none is left. */
export async function startServers(orders: readonly ServerOrder[], fdOf: (slot: Slot) => number, owner: Owner | undefined): Promise<Server[]> {
  const servers: Server[] = [];
  const all = orders.map((order) => ({
    order,
    files: {
      mount: fdOf(order.mount),
      device: fdOf(order.device),
      lowers: order.lowers.map(fdOf),
      space: order.writable && fdOf(order.writable.space),
    },
  }));
  for (const [index, { order, files }] of all.entries()) {
    try {
      servers.push(await start(order, files, owner));
    } catch (error) {
      for (const { files } of all.slice(index + 1)) for (const fd of descriptorsOf(files)) native().close(fd);
      await Promise.all(servers.map((server) => server.end()));
      throw error;
    }
  }
  return servers;
}

/** Slots whose descriptors the plan is to leave. */
export const slotsOf = (orders: readonly ServerOrder[]): Slot[] =>
  orders.flatMap(({ device, lowers, writable }) => [device, ...lowers, ...(writable ? [writable.space] : [])]);

const descriptorsOf = ({ device, lowers, space }: ServerFiles): number[] => [device, ...lowers, ...(space === undefined ? [] : [space])];

async function start(order: ServerOrder, files: ServerFiles, owner: Owner | undefined): Promise<Server> {
  const plan = new PlanBuilder();
  const [device, ...mounts] = descriptorsOf(files).map((fd, index) => plan.slot(`descriptor ${index}`, fd)) as [Slot, ...Slot[]];
  let output: Output;
  try {
    output = new Output();
    const nothing = plan.slot('nothing', checked(native().openFile('/dev/null'), 'open', 'start fuse-overlayfs'));
    addSteps(plan, order, { device, mounts, nothing, messages: plan.slot('messages', output.writeEnd) }, owner);
  } catch (error) {
    for (const fd of plan.slots()) if (fd >= 0) native().close(fd);
    throw error;
  }
  const child = await launchChild(plan);
  const setRef = (on: boolean): void => {
    child.setRef(on);
    output.setRef(on);
  };
  setRef(false);
  let over: string | undefined;
  const ended = child.ended.then(async (how) => {
    over = (await output.whole) || how;
  });
  const server: Server = {
    get over() {
      return over;
    },
    end: async () => {
      setRef(true);
      child.kill();
      await ended;
    },
  };
  try {
    await answer(files.mount, owner);
    return server;
  } catch (cause) {
    // Nobody answers for the mount: it has ended, and says why.
    await server.end();
    throw new IsolationError('ERR_CLOISTER_ROOTFS', `fuse-overlayfs could not begin: ${over}`, { step: 'start fuse-overlayfs', cause });
  }
}

/** The last of what it says. */
class Output {
  readonly writeEnd: number;
  /** Resolves when nobody can say anything any more. */
  readonly whole: Promise<string>;
  readonly setRef: (on: boolean) => void;

  constructor() {
    const [read, write] = checked(native().pipe(), 'pipe2', 'start fuse-overlayfs') as [number, number];
    this.writeEnd = write;
    const stream = new Socket({ fd: native().handOver(read), readable: true, writable: false });
    let text = '';
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text = `${text}${chunk}`.slice(-4096);
    });
    stream.on('error', () => {});
    this.setRef = (on) => void (on ? stream.ref() : stream.unref());
    this.whole = new Promise((resolve) => {
      stream.once('close', () => {
        // It speaks of options that are only for its own way to mount.
        const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('unknown argument ignored'));
        resolve(lines.join('; '));
      });
    });
  }
}

interface Given {
  readonly device: Slot;
  /** The layers, and the one with the writable layer. */
  readonly mounts: readonly Slot[];
  readonly nothing: Slot;
  readonly messages: Slot;
}

function addSteps(plan: PlanBuilder, order: ServerOrder, { device, mounts, nothing, messages }: Given, owner: Owner | undefined): void {
  const lowers = order.lowers.length;
  const path = program();
  if (path === undefined) throw new IsolationError('ERR_CLOISTER_ROOTFS', 'fuse-overlayfs is not there any more', { step: 'start fuse-overlayfs' });
  plan.cloneFlags = k.CLONE_PIDFD | k.CLONE_NEWNS | k.CLONE_NEWPID | k.CLONE_NEWIPC | k.CLONE_NEWUTS | k.CLONE_NEWNET | k.CLONE_NEWCGROUP;
  plan.reportSlot = plan.slot('report pipe');
  if (owner) {
    // As in join.ts: whoever is in that user namespace could read memory that is shared.
    plan.ownMemory = true;
    plan.in('join').label('become unreadable').add('prctl', [k.PR_SET_DUMPABLE, 0, 0, 0, 0]);
    enterOwner(plan, owner);
  }
  plan.in('child').label('become root inside');
  for (const signal of caller().ignoredSignals) plan.add('rt_sigaction', [signal, defaultSignalAction, 0, 8]);
  if (owner) {
    plan.add('setgroups', [0, null], { tolerate: [k.EPERM, k.EINVAL] });
    plan.add('setresgid', [0, 0, 0]);
    plan.add('setresuid', [0, 0, 0]);
  }
  plan.label('die with the parent').add('prctl', [k.PR_SET_PDEATHSIG, k.SIGKILL, 0, 0, 0]);
  plan.add('expect_alive', []);
  // A terminal's Ctrl-C is for the host process: it may go on.
  plan.label('begin a session').add('setsid', []);
  plan.label("make the host's files read-only", '/');
  plan.add('mount_setattr', [cwd, '/', k.AT_RECURSIVE, mountAttr({ set: k.MOUNT_ATTR_RDONLY, propagation: k.MS_PRIVATE })]);
  plan.label('mount the layers', place);
  const base = newFilesystem(plan, 'tmpfs', { mode: '0755', size: '1048576' }, k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV);
  const names = [...Array.from({ length: lowers }, (_, index) => String(index)), ...(order.writable ? ['space'] : [])];
  for (const name of names) plan.add('mkdirat', [base, name, 0o755]);
  plan.add('move_mount', [base, '', cwd, place, k.MOVE_MOUNT_F_EMPTY_PATH]);
  for (const [index, name] of names.entries()) plan.add('move_mount', [mounts[index] as Slot, '', base, name, k.MOVE_MOUNT_F_EMPTY_PATH]);
  plan.label('mount /proc', '/proc').add('move_mount', [newProc(plan), '', cwd, '/proc', k.MOVE_MOUNT_F_EMPTY_PATH]);
  plan.label('connect the streams').add('dup3', [nothing, 0, 0]);
  plan.add('dup3', [messages, 1, 0]);
  plan.add('dup3', [messages, 2, 0]);
  plan.add('dup3', [device, 3, 0]);
  plan.label('close all other descriptors').add('dup3', [plan.reportSlot, 4, k.O_CLOEXEC]);
  plan.add('close_range', [5, 0xffffffff, 0]);
  plan.label('drop capabilities').add('drop_bounding', [needed, caller().lastCapability]);
  plan.add('prctl', [k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
  plan.label('unblock signals').add('rt_sigprocmask', [k.SIG_SETMASK, noSignals, 0, 8]);
  plan.label('start fuse-overlayfs', path);
  plan.add('exec', [[path], ['fuse-overlayfs', '-f', '-o', optionsOf(order, lowers), '/dev/fd/3'], ['PATH=/usr/bin:/bin']]);
}

/** chown, dac_override, dac_read_search, fowner, fsetid, setfcap, mknod; sys_admin for the trusted.* attributes of layers, which it has to see. */
const needed = [0, 1, 2, 3, 4, 21, 27, 31].reduce((mask, number) => mask + 2 ** number, 0);

function optionsOf({ writable, volatile }: ServerOrder, lowers: number): string {
  const list = Array.from({ length: lowers }, (_, index) => `${place}/${index}`).join(':');
  const options = [
    `lowerdir=${list}`,
    ...(writable ? [`upperdir=${place}/space/${writable.upper}`, `workdir=${place}/space/${writable.work}`] : []),
    // What was written is in the layer when write(2) has returned: changes() reads it there.
    'writeback=0',
    ...(volatile ? ['volatile'] : []),
  ];
  // process_opt_sep_arg() of libfuse.
  return options.map((option) => option.replace(/[\\,]/g, '\\$&')).join(',');
}

/** Resolves when the program answers for the mount, rejects when nobody will. */
async function answer(mount: number, owner: Owner | undefined): Promise<void> {
  const plan = new PlanBuilder();
  if (owner) {
    enterOwner(plan, owner);
    plan.label('become root inside').add('setresgid', [0, 0, 0]);
    plan.add('setresuid', [0, 0, 0]);
  } else plan.in('parent');
  const slot = plan.slot('root', native().duplicate(mount, 64));
  plan.label('wait for fuse-overlayfs').open('root', 'openat', [slot, '.', k.O_RDONLY | k.O_DIRECTORY | k.O_CLOEXEC, 0]);
  await runPlan(plan);
}
