// A service worker: the page's files from the network as long as it answers, and from here when it does not.

const KEPT = 'teach-a-network';

self.addEventListener('install', (event) => event.waitUntil((async () => {
  const files = await (await fetch('files.json')).json();
  await (await caches.open(KEPT)).addAll(['./', ...files]);
  await self.skipWaiting();
})()));

self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

self.addEventListener('fetch', (event) => {
  if (event.request.method !== 'GET' || new URL(event.request.url).origin !== self.location.origin) return;
  event.respondWith((async () => {
    const kept = await caches.open(KEPT);
    try {
      const answer = await fetch(event.request);
      if (answer.ok) await kept.put(event.request, answer.clone());
      return answer;
    } catch (error) {
      const found = await kept.match(event.request, { ignoreSearch: true });
      if (found) return found;
      throw error;
    }
  })());
});
