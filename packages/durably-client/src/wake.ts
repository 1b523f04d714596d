const LOOK_EVERY_MS = 5_000
const AWAY_MS = 15_000

/** Calls back when connections may have died without a word, which only a page can tell: it was hidden or its machine
 * asleep for a while, or the network is another one. */
export function onWake(wake: () => void): () => void {
  if (typeof document === 'undefined') return () => undefined
  let lastSeen = Date.now()
  const look = () => {
    if (document.visibilityState === 'hidden') return
    const away = Date.now() - lastSeen
    lastSeen = Date.now()
    if (away >= AWAY_MS) wake()
  }
  const timer = setInterval(look, LOOK_EVERY_MS)
  document.addEventListener('visibilitychange', look)
  window.addEventListener('online', wake)
  return () => {
    clearInterval(timer)
    document.removeEventListener('visibilitychange', look)
    window.removeEventListener('online', wake)
  }
}
