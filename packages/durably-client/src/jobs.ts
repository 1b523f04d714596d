import type { ClientRun } from './runs.js'

/** What the generated `Jobs` interface says about one job. */
export interface JobTypes {
  /** The job's name, where it is not its property in kebab-case. */
  name?: string
  input: unknown
  output: unknown
}

export type JobMap<Jobs> = { [K in keyof Jobs]: JobTypes }

/** Jobs nobody described: any property, any input. */
export type UntypedJobs = Record<string, JobTypes>

export type InputOf<Job> = Job extends { input: infer TInput } ? TInput : unknown
export type OutputOf<Job> = Job extends { output: infer TOutput } ? TOutput : unknown

/** `importCsv` is the property of the job `import-csv`. */
type KebabCase<S extends string> = S extends `${infer Head}${infer Tail}`
  ? Head extends Lowercase<Head>
    ? `${Head}${KebabCase<Tail>}`
    : `-${Lowercase<Head>}${KebabCase<Tail>}`
  : S

export type JobProperty<Jobs> = keyof Jobs & string

export type JobName<Jobs, K extends JobProperty<Jobs> = JobProperty<Jobs>> = K extends unknown
  ? Required<Jobs[K]> extends { name: infer TName extends string }
    ? TName
    : KebabCase<K>
  : never

/** A run of any of the jobs: `jobName` tells which, and with it the types of input and output. */
export type RunOf<Jobs, TName extends string = JobName<Jobs>> = {
  [K in JobProperty<Jobs>]: JobName<Jobs, K> extends TName
    ? ClientRun<InputOf<Jobs[K]>, OutputOf<Jobs[K]>, JobName<Jobs, K>>
    : never
}[JobProperty<Jobs>]

type UnconventionalProperty<Jobs> = {
  [K in JobProperty<Jobs>]: JobName<Jobs, K> extends KebabCase<K> ? never : K
}[JobProperty<Jobs>]

type AllNames<Jobs> = { readonly [K in JobProperty<Jobs>]: JobName<Jobs, K> }

/** Job names by property. Needed for the jobs whose name does not follow from the property. */
export type JobNames<Jobs> = Partial<AllNames<Jobs>> & Pick<AllNames<Jobs>, UnconventionalProperty<Jobs>>

export type NamesOption<Jobs> = [UnconventionalProperty<Jobs>] extends [never]
  ? { names?: JobNames<Jobs> }
  : { names: JobNames<Jobs> }

function jobNameOf(property: string, names: Readonly<Record<string, string | undefined>>): string {
  // A job may be called `constructor`, which every object has.
  const declared = Object.hasOwn(names, property) ? names[property] : undefined
  return declared ?? property.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

/** An object with one lazily made, lasting member per job, whatever the property. */
export function jobProxy(
  names: Readonly<Record<string, string | undefined>>,
  memberOf: (jobName: string) => object,
  fixed: Readonly<Record<string, unknown>> = {},
): unknown {
  const members = new Map<string, object>()
  return new Proxy(fixed, {
    get(target, property) {
      // A proxy in a text, as of a log line, is hardly meant, but no reason to fail.
      if (property === Symbol.toPrimitive) return () => '[object Durably]'
      // `then` would make the proxy look like a promise to `await`.
      if (typeof property === 'symbol' || property === 'then') return undefined
      if (Object.hasOwn(target, property)) return target[property]
      const known = members.get(property)
      if (known !== undefined) return known
      const member = memberOf(jobNameOf(property, names))
      members.set(property, member)
      return member
    },
  })
}
