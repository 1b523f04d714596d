import type { Labels, RunStatus } from './runs.js'

export interface RunsSubscribeFilter {
  jobName?: string | readonly string[] | undefined
  labels?: Labels | undefined
}

export interface RunFilter extends RunsSubscribeFilter {
  status?: RunStatus | readonly RunStatus[] | undefined
  limit?: number | undefined
  offset?: number | undefined
}

/** The order of keys and values must not matter: streams with equal paths share one connection. */
export function subscribePath(filter: RunsSubscribeFilter): string {
  return withQuery('/runs/subscribe', filterParams(filter))
}

export function runsPath(filter: RunFilter): string {
  const params = filterParams(filter)
  for (const status of asArray(filter.status)) params.append('status', status)
  if (filter.limit !== undefined) params.append('limit', String(filter.limit))
  if (filter.offset !== undefined) params.append('offset', String(filter.offset))
  return withQuery('/runs', params)
}

export function runPath(path: string, runId: string): string {
  return withQuery(path, new URLSearchParams({ runId }))
}

function filterParams({ jobName, labels = {} }: RunsSubscribeFilter): URLSearchParams {
  const params = new URLSearchParams()
  for (const name of asArray(jobName).toSorted()) params.append('jobName', name)
  for (const key of Object.keys(labels).toSorted()) params.append(`label.${key}`, labels[key] ?? '')
  return params
}

function withQuery(path: string, params: URLSearchParams): string {
  const query = params.toString()
  return query === '' ? path : `${path}?${query}`
}

function asArray<T extends string>(value: T | readonly T[] | undefined): readonly T[] {
  if (value === undefined) return []
  return typeof value === 'string' ? [value] : value
}
