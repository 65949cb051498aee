import { readFileSync } from 'node:fs';
import { IsolationError } from '../errors.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd, type Slot } from '../plan/steps.js';
import { openHow } from '../plan/structs.js';
import { enterOwner } from '../rootfs/ordinary-owner.js';
import type { RootUse } from '../rootfs/shared-root.js';
import type { UserSetting } from './privilege-settings.js';

export interface NamedUser extends UserSetting {
  readonly home: string;
}

/** 'name', 'name:group' → ids, from /etc/passwd and /etc/group as they are inside. Numbers need no entry. passwd(5), group(5) */
export async function lookUpUser(name: string, rootfs: RootUse | string | undefined): Promise<NamedUser> {
  const [userName = '', groupName] = name.split(':');
  const passwd = entries(await readInside('/etc/passwd', rootfs));
  const isNumber = /^\d+$/.test(userName);
  const entry = passwd.find(([entryName, , uid]) => (isNumber ? Number(uid) === Number(userName) : entryName === userName));
  if (!entry && !isNumber) throw unknown('user', userName, '/etc/passwd');
  const uid = isNumber ? id(userName, userName, 'option user') : id(entry?.[2], userName, '/etc/passwd');
  const ownGid = entry ? id(entry[3], userName, '/etc/passwd') : 0;
  const home = entry?.[5]?.startsWith('/') ? entry[5] : '/';
  const group = entries(await readInside('/etc/group', rootfs));
  if (groupName !== undefined) {
    if (/^\d+$/.test(groupName)) return { uid, gid: id(groupName, groupName, 'option user'), groups: [], home };
    const found = group.find(([entryName]) => entryName === groupName);
    if (!found) throw unknown('group', groupName, '/etc/group');
    return { uid, gid: id(found[2], groupName, '/etc/group'), groups: [], home };
  }
  const member = entry?.[0] ?? '';
  const groups = group
    .filter(([, , , members]) => member !== '' && members?.split(',').includes(member))
    .map(([group, , gid]) => id(gid, group ?? '', '/etc/group'));
  return { uid, gid: ownGid, groups, home };
}

const entries = (text: string): string[][] => text.split('\n').map((line) => line.split(':'));

/** Strictly: an empty or odd number must not become 0 (CVE-2026-30892). */
function id(text: string | undefined, name: string, file: string): number {
  if (text === undefined || !/^\d{1,10}$/.test(text) || Number(text) > 0xfffffffe) {
    throw new IsolationError('ERR_CLOISTER_USER', `the entry of '${name}' in the root's ${file} has no proper id`, { step: 'look up the user', path: file });
  }
  return Number(text);
}

function unknown(kind: string, name: string, file: string): IsolationError {
  return new IsolationError('ERR_CLOISTER_USER', `there is no ${kind} '${name}' in the root's ${file}`, {
    step: 'look up the user',
    path: file,
    hint: 'Names are looked up inside; a number needs no entry.',
  });
}

async function readInside(path: string, rootfs: RootUse | string | undefined): Promise<string> {
  // A default root that is new shows the host's own file.
  if (rootfs === undefined) return readFileSync(path, 'utf8');
  const plan = new PlanBuilder();
  let root: Slot;
  plan.in('parent').label('look up the user', path);
  if (typeof rootfs === 'string') root = plan.open('root', 'openat', [cwd, rootfs, k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC, 0]);
  else {
    const { fd } = rootfs.mounts.find(({ target }) => target === '/etc') ?? (rootfs.mounts[0] as { fd: number });
    if (rootfs.owner) enterOwner(plan, rootfs.owner);
    root = plan.slot('root', native().duplicate(fd, 0));
  }
  const file = plan.open(
    'file',
    'openat2',
    [root, path.slice(1), openHow(k.O_RDONLY | k.O_CLOEXEC | k.O_NONBLOCK, k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS)],
    { tolerate: [k.ENOENT] },
  );
  plan.keep(file);
  const fd = (await runPlan(plan))(file);
  if (fd < 0) return '';
  try {
    return readFileSync(fd, 'utf8');
  } finally {
    native().close(fd);
  }
}
