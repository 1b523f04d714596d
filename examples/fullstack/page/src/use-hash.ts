import { useSyncExternalStore } from 'react'

/** The id behind the # of the address, so that reload, back and a copied link keep what is shown. */
export function useHash(): [string | null, (id: string | null) => void] {
  return [useSyncExternalStore(onHashChange, currentHash), setHash]
}

function onHashChange(notify: () => void): () => void {
  window.addEventListener('hashchange', notify)
  return () => window.removeEventListener('hashchange', notify)
}

function currentHash(): string | null {
  return window.location.hash.slice(1) || null
}

function setHash(id: string | null): void {
  window.location.hash = id ?? ''
}
