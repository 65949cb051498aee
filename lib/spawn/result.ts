import type { NativeUsage } from '../../types/native.js';
import { hierarchies } from '../cgroup/hierarchies.js';
import { commonName } from '../cgroup/limits.js';
import { profileOf } from '../security/apparmor.js';
import { capabilitiesOf } from '../security/capabilities.js';
import { contextOf, selinuxIsOn } from '../security/selinux.js';
import type { Prepared } from './prepare.js';
import type { GroupUsage, ProcessGroup } from './process-group.js';
import type { Settings } from './settings.js';
import type { IsolatedResult, IsolationReceipt } from './types.js';

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly usage: NativeUsage;
  readonly group?: GroupUsage;
}

export function resultOf(
  settings: Settings,
  prepared: Prepared,
  outcome: Outcome,
  reason: IsolatedResult['reason'],
  durationMs: number,
  seen?: IsolationReceipt,
): IsolatedResult {
  const [cpuUserMs, cpuSystemMs, maxRssBytes] = outcome.usage;
  return {
    exitCode: outcome.code,
    signal: outcome.signal,
    reason,
    durationMs,
    // getrusage(2), of the program and the descendants that it has waited for; of all that were in it where its own group tells.
    usage: { cpuUserMs, cpuSystemMs, maxRssBytes, memoryPeakBytes: maxRssBytes, memoryPeakSource: 'rusage', ...outcome.group },
    isolation: seen ?? receiptOf(settings, prepared),
  };
}

export function receiptOf(settings: Settings, prepared: Prepared): IsolationReceipt {
  const { namespaces } = prepared;
  return {
    level: prepared.fallback ? 'landlock' : 'namespaces',
    namespaces,
    ...(prepared.idMap === undefined ? {} : { idMap: prepared.idMap }),
    root: { driver: prepared.driver, readonly: settings.readonly, missing: prepared.missing },
    capabilities: settings.capabilities === 'caller' ? [] : capabilitiesOf(settings.capabilities.effective),
    noNewPrivileges: settings.noNewPrivileges,
    seccomp: settings.seccomp && prepared.filters ? { profile: settings.seccomp.profile.name, instructions: prepared.filters.instructions } : false,
    landlock: prepared.landlock ? { abi: prepared.landlock.abi, missing: prepared.landlock.missing } : false,
    apparmor: prepared.apparmor === undefined ? (profileOf('self') ?? false) : { profile: prepared.apparmor },
    selinux: settings.selinux?.process ?? (selinuxIsOn() && contextOf('self')) ?? false,
    cgroup: prepared.group ? groupOf(prepared.group) : false,
    network: settings.bridge ? 'bridge' : settings.network?.egress ? 'egress' : namespaces.net === 'new' ? 'none' : namespaces.net,
    missing: prepared.fallback?.missing ?? [],
  };
}

function groupOf({ places }: ProcessGroup): IsolationReceipt['cgroup'] {
  const main = places.find(({ hierarchy }) => hierarchy.version === 'v2') ?? places[0];
  return { mode: hierarchies().mode, path: main?.directory ?? '', controllers: [...new Set(places.flatMap(({ controllers }) => controllers.map(commonName)))] };
}
