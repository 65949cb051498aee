import { CgroupError } from '../errors.js';
import { cgroupAdvice } from '../host/cgroup-hints.js';
import { native } from '../native.js';
import type { Rule } from './controllers/devices.js';
import { deviceProgram } from './device-program.js';
import { devicesAreHere, type Limits } from './limits.js';
import { type Place, v2Of } from './places.js';

/** What decides about devices on v2, by its descriptor; -1: nothing. */
export function loadProgram(places: readonly Place[], { devices }: Limits): number {
  const v2 = v2Of(places);
  if (!devices || !v2 || !devicesAreHere(v2.hierarchy)) return -1;
  const program = native().loadDeviceProgram(deviceProgram(devices));
  if (program >= 0) return program;
  const refusal = { step: 'limit devices', syscall: 'bpf', path: v2.directory };
  throw CgroupError.ofErrno('ERR_CLOISTER_CGROUP', program, { ...refusal, ...cgroupAdvice({ ...refusal, errno: -program, cloneFlags: 0 }) });
}

/** What a group lets its processes do with devices, and the program that is kept for as long: another one can replace it only by naming it. */
export class DeviceLimit {
  #rules: readonly Rule[] | undefined;
  #program: number;

  constructor(rules: readonly Rule[] | undefined, program: number) {
    this.#rules = rules;
    this.#program = program;
  }

  /** undefined: not known. */
  get rules(): readonly Rule[] | undefined {
    return this.#rules;
  }

  /** As a whole, in one step on v2; v1's are written like other limits. */
  replace(places: readonly Place[], rules: readonly Rule[]): void {
    this.#rules = rules;
    const v2 = v2Of(places);
    if (!v2 || !devicesAreHere(v2.hierarchy)) return;
    const program = loadProgram([v2], { entries: [], devices: rules });
    const group = native().openFile(v2.directory);
    const attached = group < 0 ? group : native().attachDeviceProgram(group, program, this.#program);
    if (group >= 0) native().close(group);
    if (attached < 0) {
      native().close(program);
      throw CgroupError.ofErrno('ERR_CLOISTER_CGROUP', attached, { syscall: 'bpf', path: v2.directory, step: 'limit devices' });
    }
    this.close();
    this.#program = program;
  }

  close(): void {
    if (this.#program >= 0) native().close(this.#program);
    this.#program = -1;
  }
}
