/* Host names of httpd's slots, from a file of the balancer agent (LD_PRELOADed into httpd alone).
 *
 * getaddrinfo() answers for names below ".slot.invalid" from the file that LUBAN_SLOT_HOSTS names, one "ADDRESS NAME"
 * a line, and hands every other name to libc. The file is read anew for each question and nothing is kept between
 * them, so threads share nothing; the agent replaces the file in one step, so each question sees a whole one. A slot's
 * name that the file does not hold is not found: it never goes to a DNS server.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUFFIX ".slot.invalid"
#define LINE_BYTES 512

typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* Both are set once, before httpd has threads. */
static resolver *libc_getaddrinfo;
static char *hosts_path;

__attribute__((constructor)) static void prepare(void)
{
    const char *path = getenv("LUBAN_SLOT_HOSTS");
    /* ISO C has no cast from an object's pointer to a function's; POSIX says that this one works. */
    *(void **)&libc_getaddrinfo = dlsym(RTLD_NEXT, "getaddrinfo");
    hosts_path = path ? strdup(path) : NULL;
}

static int is_slot(const char *name)
{
    size_t length = strlen(name), suffix = sizeof SUFFIX - 1;
    return length > suffix && strcmp(name + length - suffix, SUFFIX) == 0;
}

/* Copy the address of `name` into `address` (LINE_BYTES long). 0, or an error of getaddrinfo. */
static int find_address(const char *name, char *address)
{
    char line[LINE_BYTES], found[LINE_BYTES];
    int result = EAI_NONAME;
    FILE *hosts = fopen(hosts_path, "re");
    if (!hosts)
        return EAI_SYSTEM;
    while (result == EAI_NONAME && fgets(line, sizeof line, hosts))
        if (sscanf(line, "%511s %511s", address, found) == 2 && strcmp(found, name) == 0)
            result = 0;
    if (ferror(hosts))
        result = EAI_SYSTEM;
    fclose(hosts);
    return result;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    char address[LINE_BYTES];
    struct addrinfo numeric = {.ai_family = AF_UNSPEC};
    int result;
    if (!libc_getaddrinfo) {
        errno = ENOSYS;
        return EAI_SYSTEM;
    }
    if (!name || !hosts_path || !is_slot(name))
        return libc_getaddrinfo(name, service, hints, found);
    result = find_address(name, address);
    if (result != 0)
        return result;
    if (hints)
        numeric = *hints;
    /* Which kinds of addresses this machine has does not matter: the agent gives one that is to be used. */
    numeric.ai_flags = (numeric.ai_flags | AI_NUMERICHOST) & ~AI_ADDRCONFIG;
    return libc_getaddrinfo(address, service, &numeric, found);
}
