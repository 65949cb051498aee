import { join } from 'node:path';
import type { NativeWatcher } from '../../types/native.js';
import { CgroupError } from '../errors.js';
import { checked, native } from '../native.js';
import { flatKeyed } from './controllers/controller.js';
import { readOptional } from './hierarchies.js';
import { type Place, v2Of } from './places.js';
import type { CgroupEvents } from './types.js';
import { oomKills } from './victims.js';

// What happens in a group, as the kernel tells it: by poll(2) on its files (cgroup-v2.rst, "Core Interface Files": an update generates a
// file modified event), and for the OOM killer of v1 by an eventfd (cgroup-v1/memory.rst, "OOM Control").

type Told = Exclude<keyof CgroupEvents, 'pressure'>;
type Emit = <E extends Told>(event: E, ...args: CgroupEvents[E]) => void;

/** Watches for one event until `close`; undefined where nothing tells of it. */
export function watchEvent(event: Told, places: readonly Place[], emit: Emit): (() => void) | undefined {
  switch (event) {
    case 'oom':
      return watchKills(places, emit);
    case 'memory-high':
      return watchCount(places, 'memory', 'memory.events', 'high', (count) => emit('memory-high', { count }));
    case 'pids-max':
      return watchForks(places, emit);
    case 'empty':
      return watchPopulation(places, emit);
  }
}

const placeOf = (places: readonly Place[], controller: string): Place | undefined => places.find(({ controllers }) => controllers.includes(controller));

/** Calls back with how much a counter has grown. */
function watchCount(places: readonly Place[], controller: string, file: string, key: string, grown: (count: number) => void): (() => void) | undefined {
  const place = placeOf(places, controller);
  const path = place && join(place.directory, file);
  const fd = path === undefined ? -1 : native().openFile(path);
  if (fd < 0) return undefined;
  return watchGrowth(fd, true, (text) => flatKeyed(text)[key] ?? 0, grown);
}

/** Milliseconds between two looks at v1's count of refused forks. */
const forksInterval = 100;

/**
 * From 6.11 on, pids_event() notifies v1 groups through events_local_file, but v1's only file is bound to events_file
 * (pids_files_legacy in kernel/cgroup/pids.c): nobody is ever woken, so on v1 the count is looked at.
 */
function watchForks(places: readonly Place[], emit: Emit): (() => void) | undefined {
  const grown = (count: number): void => emit('pids-max', { count });
  const place = placeOf(places, 'pids');
  if (place?.hierarchy.version !== 'v1') return watchCount(places, 'pids', 'pids.events', 'max', grown);
  const path = join(place.directory, 'pids.events');
  const countIn = (text: string | number | undefined): number => (typeof text === 'string' ? (flatKeyed(text)['max'] ?? 0) : 0);
  let before = countIn(readOptional(path));
  let timer: NodeJS.Timeout | undefined;
  const look = async (): Promise<void> => {
    const [text] = await native().readFiles([path]);
    if (timer === undefined) return;
    const more = countIn(text) - before;
    before += Math.max(0, more);
    timer = setTimeout(look, forksInterval).unref();
    if (more > 0) grown(more);
  };
  timer = setTimeout(look, forksInterval).unref();
  return () => {
    clearTimeout(timer);
    timer = undefined;
  };
}

function watchGrowth(fd: number, priority: boolean, count: (text: string) => number, grown: (count: number) => void): () => void {
  let before = 0;
  const watcher: NativeWatcher = new (native().Watcher)(fd, priority, (text) => {
    if (text === undefined) return;
    const now = count(text);
    const more = now - before;
    before = now;
    if (more > 0) grown(more);
  });
  before = count(watcher.text() ?? '');
  return () => watcher.close();
}

function watchKills(places: readonly Place[], emit: Emit): (() => void) | undefined {
  const place = placeOf(places, 'memory');
  if (!place) return undefined;
  if (place.hierarchy.version === 'v2') return watchCount(places, 'memory', 'memory.events', 'oom_kill', (kills) => emit('oom', { kills }));
  const path = join(place.directory, 'memory.oom_control');
  const file = checked(native().openFile(path), 'open', 'watch for the OOM killer');
  const event = checked(native().eventFd(), 'eventfd2', 'watch for the OOM killer');
  const control = native().openFile(join(place.directory, 'cgroup.event_control'), 1);
  const registered = control < 0 ? control : native().writeText(control, `${event} ${file}`);
  for (const fd of [control, file]) if (fd >= 0) native().close(fd);
  if (registered < 0) {
    native().close(event);
    throw CgroupError.ofErrno('ERR_CLOISTER_CGROUP', registered, {
      syscall: 'write',
      path: join(place.directory, 'cgroup.event_control'),
      step: 'watch for the OOM killer',
    });
  }
  let before = flatKeyed(readOptional(path))['oom_kill'] ?? 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  // It is told before the killer chooses its victim (memcg1_oom_prepare), and the removal of the group signals it as well, without a
  // victim: so the count is looked at now, and, while it has not grown, after 1, 2, 4 … 512 ms.
  const look = async (wait: number): Promise<void> => {
    clearTimeout(timer);
    const more = (await oomKills(places)) - before;
    if (closed) return;
    if (more > 0) {
      before += more;
      emit('oom', { kills: more });
    } else if (wait < 1000) timer = setTimeout(look, wait, wait * 2).unref();
  };
  const watcher: NativeWatcher = new (native().Watcher)(event, false, () => void look(1));
  return () => {
    closed = true;
    clearTimeout(timer);
    watcher.close();
  };
}

/** v1 alone tells nobody that a group is empty, but a program of root's (release_agent). */
function watchPopulation(places: readonly Place[], emit: Emit): (() => void) | undefined {
  const v2 = v2Of(places);
  const fd = v2 ? native().openFile(join(v2.directory, 'cgroup.events')) : -1;
  if (fd < 0) return undefined;
  let before: string | undefined;
  const look = (text: string | undefined): void => {
    // There is one event in 10 ms at most (CGROUP_FILE_NOTIFY_MIN_INTV), and none without a change: who reads the same as before,
    // 'populated 0', has missed that it was populated in between.
    const isEmpty = text?.includes('populated 0') ?? true;
    if (isEmpty && before !== undefined && (before.includes('populated 1') || before === text)) emit('empty');
    before = text ?? '';
  };
  const watcher: NativeWatcher = new (native().Watcher)(fd, true, look);
  look(watcher.text());
  return () => watcher.close();
}
