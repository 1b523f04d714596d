export interface UploadedFile {
  id: string
  name: string
  columns: string[]
  rows: number
}

export const listFiles = () => request<UploadedFile[]>('/api/files')

export const upload = (file: File) =>
  request<UploadedFile>(`/api/files?${new URLSearchParams({ name: file.name }).toString()}`, {
    method: 'POST',
    body: file,
  })

export const uploadSample = () => request<UploadedFile>('/api/files/sample', { method: 'POST' })

async function request<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await fetch(path, init)
  if (response.ok) return (await response.json()) as T
  throw new Error(await reasonOf(response))
}

async function reasonOf(response: Response): Promise<string> {
  const text = await response.text()
  try {
    const { detail } = JSON.parse(text) as { detail?: unknown }
    if (typeof detail === 'string') return detail
  } catch {
    // Not every server in between answers in JSON.
  }
  return `The server answered ${response.status} ${response.statusText}`
}
