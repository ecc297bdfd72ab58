# A packet reaches a target that runs.
s/if \(s->running\) \{/if (false) {/
