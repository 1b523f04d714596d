import { type RunStatus } from 'durably-react'
import { useEffect, useState } from 'react'
import { jobNames } from './durably.gen'
import { listFiles } from './files'
import { WORDS } from './status'

export type JobName = (typeof jobNames)[keyof typeof jobNames]

export interface Filter {
  status: RunStatus | ''
  job: JobName | ''
  /** A value of the label `file`. */
  label: string
}

export const NO_FILTER: Filter = { status: '', job: '', label: '' }

export const isFiltering = (filter: Filter) => Object.values(filter).some((value) => value !== '')

const STATUSES: RunStatus[] = ['pending', 'leased', 'completed', 'failed', 'cancelled']

interface FiltersProps {
  filter: Filter
  onChange: (filter: Filter) => void
}

export function Filters({ filter, onChange }: FiltersProps) {
  const [names, reload] = useFileNames()
  return (
    <form className="filters" aria-label="Filter" onSubmit={(event) => event.preventDefault()}>
      <Choice
        label="Status"
        value={filter.status}
        options={STATUSES}
        words={WORDS}
        onChange={(status) => onChange({ ...filter, status })}
      />
      <Choice
        label="Job"
        value={filter.job}
        options={Object.values(jobNames)}
        onChange={(job) => onChange({ ...filter, job })}
      />
      <Choice
        label="File"
        value={filter.label}
        options={filter.label === '' || names.includes(filter.label) ? names : [filter.label, ...names]}
        onOpen={reload}
        onChange={(label) => onChange({ ...filter, label })}
      />
      <button type="button" className="quiet" disabled={!isFiltering(filter)} onClick={() => onChange(NO_FILTER)}>
        Clear
      </button>
    </form>
  )
}

interface ChoiceProps<T extends string> {
  label: string
  value: T | ''
  options: readonly T[]
  /** What stands there for each option, where it is not the option itself. */
  words?: Record<T, string>
  onOpen?: () => void
  onChange: (value: T | '') => void
}

function Choice<T extends string>({ label, value, options, words, onOpen, onChange }: ChoiceProps<T>) {
  return (
    <label>
      <span>{label}</span>
      <select value={value} onFocus={onOpen} onChange={({ target }) => onChange(target.value as T | '')}>
        <option value="">any</option>
        {options.map((option) => (
          <option key={option} value={option}>
            {words ? words[option] : option}
          </option>
        ))}
      </select>
    </label>
  )
}

/** The names of all uploaded files; asked for again whenever somebody is about to choose one. */
function useFileNames(): [string[], () => void] {
  const [names, setNames] = useState<string[]>([])
  function reload() {
    listFiles().then(
      (files) => setNames([...new Set(files.map((file) => file.name))]),
      // The list only offers what to choose; the runs themselves tell when the server is away.
      () => setNames([]),
    )
  }
  useEffect(reload, [])
  return [names, reload]
}
